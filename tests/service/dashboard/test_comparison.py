"""Predicted against measured: only launches that differ in their mixture alone are compared."""

from typing import Any

import pytest

from service.dashboard.comparison import compare, objective_value
from service.dashboard.sentences import predicted_verdict
from tests.service.dashboard.store import TOKENS, evidence

TASKS = ("arithmetic", "python-docs", "short-stories")


def launch(kind: str, bpb: float, state: str = "succeeded", **settings: Any) -> dict[str, Any]:
    return {
        "id": f"launch_{kind}_{bpb}",
        "mixture_kind": kind,
        "state": state,
        "metrics": dict.fromkeys(TASKS, bpb) if state == "succeeded" else {},
        "settings": {"size": "micro-1M", "tokens": 1000, "seed": 1, **settings},
        "non_embedding_parameters": 1_000_000,
    }


def test_gains_are_natural_minus_proposed_and_weighted_by_the_objective() -> None:
    natural, proposed = launch("natural", 2.0), launch("proposed", 2.0)
    proposed["metrics"] = {"arithmetic": 1.9, "python-docs": 1.98, "short-stories": 2.1}
    found = compare(evidence(TOKENS), [proposed, natural])
    assert found is not None
    assert [gain.measured for gain in found.tasks] == pytest.approx([0.1, 0.02, -0.1])
    # 0.25 * 0.1 + 0.5 * 0.02 - 0.25 * 0.1
    assert found.objective.measured == pytest.approx(0.01)
    assert [gain.is_inside for gain in found.tasks] == [False, False, False]


def test_the_newest_finished_pair_is_compared() -> None:
    launches = [
        launch("proposed", 0.0, state="running"),
        launch("proposed", 1.8),
        launch("proposed", 1.7),
        launch("natural", 2.0),
        launch("custom", 1.5),
    ]
    found = compare(evidence(TOKENS), launches)
    assert found is not None
    assert found.objective.measured == pytest.approx(0.2)


@pytest.mark.parametrize(
    "launches",
    [
        [],
        [launch("proposed", 1.8)],
        [launch("proposed", 1.8), launch("natural", 2.0, seed=2)],
        [launch("proposed", 1.8), launch("natural", 2.0, tokens=2000)],
        [launch("proposed", 1.8), launch("natural", 2.0, state="failed")],
    ],
)
def test_without_a_pair_nothing_is_compared(launches: list[dict[str, Any]]) -> None:
    assert compare(evidence(TOKENS), launches) is None


def test_an_objective_needs_all_its_tasks() -> None:
    assert objective_value({"a": 1.0, "b": 3.0}, {"a": 3.0, "b": 1.0}) == pytest.approx(1.5)
    assert objective_value({"a": 1.0}, {"a": 0.5, "b": 0.5}) is None
    assert objective_value({}, {}) is None


@pytest.mark.parametrize(("gain", "tone"), [(0.05, "good"), (0.01, "open"), (-0.05, "bad")])
def test_the_verdict_follows_the_interval_and_not_the_estimate(gain: float, tone: str) -> None:
    verdict = predicted_verdict(evidence(TOKENS, gain))
    assert verdict.tone == tone
    assert ("cannot tell" in verdict.words) == (tone == "open")
