from typing import Any

import pytest

from service.dashboard.sentences import measured_verdict
from service.demo.demo import answer_text, gain_table, result_document
from service.launches.comparison import compare_pair


@pytest.fixture
def evidence() -> dict[str, Any]:
    task = {"rank_correlation": 0.93, "mae": 0.0123, "noise": 0.004, "natural": 2.0, "proposed": 1.9}
    return {
        "objective": {**task, "gain": 0.1, "gain_interval": [0.05, 0.15], "confidence": 0.9, "unit": "BPB"},
        "tasks": [
            {**task, "name": "code", "weight": 3.0, "gain": 0.1, "gain_interval": [0.02, 0.18]},
            {**task, "name": "prose", "weight": 1.0, "gain": 0.1, "gain_interval": [0.0, 0.2]},
        ],
        "held_out_rank_correlation": 0.93,
        "domains": [
            {"name": "big", "tokens": 9e6, "natural": 0.9, "weight": 0.6, "epochs": 0.1, "binding": False},
            {"name": "small", "tokens": 1e6, "natural": 0.1, "weight": 0.4, "epochs": 4.0, "binding": True},
        ],
        "constraints": [{"statement": "small is read 4 times, its cap."}],
        "warnings": [{"code": "few_runs", "message": "Only 9 runs."}],
        "notes": [],
        "worse": [],
        "runs_used": 9,
    }


@pytest.fixture
def optimization() -> dict[str, Any]:
    return {
        "progress": {"runs": {"total": 9}, "tokens_trained": 900},
        "to_know": None,
        "lost_runs": [{"run_id": "run_x", "reason": "diverged: at step 3"}],
    }


def launch(code: float, prose: float) -> dict[str, Any]:
    return {"metrics": {"code": code, "prose": prose}, "tokens": 50, "non_embedding_parameters": 1_000_000}


def test_the_measured_objective_is_the_weighted_mean(evidence: dict[str, Any]) -> None:
    measured = compare_pair(evidence, launch(1.8, 2.2), launch(1.6, 2.4)).objective
    assert (measured.natural, measured.proposed) == pytest.approx(((3 * 1.8 + 2.2) / 4, (3 * 1.6 + 2.4) / 4))


def test_the_answer_shows_epochs_constraints_warnings_and_lost_runs(
    evidence: dict[str, Any], optimization: dict[str, Any]
) -> None:
    text = answer_text(optimization, evidence)
    small = next(line for line in text.splitlines() if "small" in line and "%" in line)
    for cell in ("10.00%", "40.00%", "4.00", "(its cap)"):
        assert cell in small
    for sentence in ("small is read 4 times, its cap.", "Only 9 runs.", "run_x", "diverged"):
        assert sentence in text


def test_gains_are_natural_minus_proposed(evidence: dict[str, Any]) -> None:
    text = gain_table(compare_pair(evidence, launch(1.8, 2.2), launch(1.6, 2.4)))
    assert "+0.2000" in next(line for line in text.splitlines() if "code" in line)
    assert "−0.2000" in next(line for line in text.splitlines() if "prose" in line)


def test_a_worse_mixture_is_called_worse(evidence: dict[str, Any]) -> None:
    worse = measured_verdict(compare_pair(evidence, launch(1.6, 1.6), launch(1.8, 1.8)))
    better = measured_verdict(compare_pair(evidence, launch(1.8, 1.8), launch(1.6, 1.6)))
    assert "1.8000 BPB on the proposed mixture, 0.2000 worse than 1.6000" in worse.words
    assert "1.6000 BPB on the proposed mixture, 0.2000 better than 1.8000" in better.words
    assert (worse.tone, better.tone) == ("bad", "good")


def test_the_json_document_has_the_promised_members(
    evidence: dict[str, Any], optimization: dict[str, Any]
) -> None:
    comparison = compare_pair(evidence, launch(1.8, 2.2), launch(1.6, 2.4))
    document = result_document(optimization, evidence, comparison)
    assert document["domains"] == 2
    assert document["runs"] == 9
    assert document["tokens_trained"] == 900 + 50 + 50
    assert document["held_out_rank_correlation"] == 0.93
    assert document["predicted"] == {"natural": 2.0, "proposed": 1.9}
    assert document["measured"] == pytest.approx({"natural": 1.9, "proposed": 1.8})


def test_a_run_as_it_was_planned_is_held_against_what_was_predicted_of_it(
    evidence: dict[str, Any], optimization: dict[str, Any]
) -> None:
    at = {"gain": 0.2, "interval": [0.1, 0.5]}
    rows = [{"name": name, **at} for name in ("code", "prose")]
    evidence["at_target"] = {"parameters": 1e6, "tokens": 50, "objective": at, "tasks": rows}
    launches = launch(1.8, 2.2), launch(1.6, 1.8)
    comparison = compare_pair(evidence, *launches)
    document = result_document(optimization, evidence, comparison)
    assert document["target"] == {
        "predicted_gain": 0.2,
        "interval": [0.1, 0.5],
        "measured_gain": pytest.approx(0.25),
        "tasks_inside": 2,
    }
    assert "within the interval predicted for it" in measured_verdict(comparison).words
    evidence["at_target"]["tokens"] = 500  # another run was planned
    assert "of what a proxy" in measured_verdict(compare_pair(evidence, *launches)).words
