"""Predicted against measured: only launches that differ in their mixture alone are compared."""

import re
from typing import Any

import pytest

from service.dashboard.sentences import target_sentences
from service.launches.comparison import compare, objective_bpb
from tests.mixing.test_target import PROXIES, anchors, document
from tests.mixing.test_warnings import fields, is_shown, numbers
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
    settings = {"tasks": [{"name": "a", "weight": 3.0}, {"name": "b", "weight": 1.0}]}
    assert objective_bpb({"a": 1.0, "b": 3.0}, settings) == pytest.approx(1.5)
    assert objective_bpb({"a": 1.0}, settings) is None
    assert objective_bpb({}, {"tasks": []}) is None


@pytest.mark.parametrize(
    ("trained", "said"), [(0, "of another are none"), (2, "are of too few mixtures"), (6, "6 anchors tell")]
)
def test_the_sentences_of_a_prediction_quote_its_fields(trained: int, said: str) -> None:
    found = document((*PROXIES, *anchors((0.5, 2.0))[:trained]))
    sentences = " ".join(target_sentences(found)).replace("\N{MINUS SIGN}", "-")
    for tokens in ("900.0M", "4.0B"):
        assert tokens in sentences
    sentences = re.sub(r"[\d.]+[MB]", "", sentences)
    assert said in sentences
    shown = [*fields(found["objective"]), *fields(found["at_target"])]
    # The size of the gain, a percentage, and how much less compute than the target.
    shown += [abs(found["objective"]["gain"]), 100 * found["objective"]["confidence"], 9 * 4]
    quoted = list(numbers(sentences, ()))
    assert len(quoted) > 10
    for number in quoted:
        assert any(is_shown(number, value) for value in shown), (number, sentences)


def test_the_worst_family_is_measured_where_it_was_minimised() -> None:
    proposal = evidence(TOKENS)
    proposal["objective"]["families"] = [
        {"name": "tech", "tasks": {"arithmetic": 0.25, "python-docs": 0.75}},
        {"name": "prose", "tasks": {"short-stories": 1.0}},
    ]
    natural, proposed = launch("natural", 2.0), launch("proposed", 2.0)
    natural["metrics"] = {"arithmetic": 2.4, "python-docs": 2.0, "short-stories": 2.05}
    proposed["metrics"] = {"arithmetic": 1.6, "python-docs": 1.6, "short-stories": 2.02}
    found = compare(proposal, [proposed, natural])
    assert found is not None
    # Natural: tech, .25 * 2.4 + .75 * 2.0 = 2.1. Proposed: prose, 2.02.
    assert (found.objective.natural, found.objective.proposed) == pytest.approx((2.1, 2.02))
    assert found.objective.name == "worst family"


def test_a_measured_objective_follows_what_was_asked_for() -> None:
    tasks = [
        {"name": "a", "weight": 1.0, "family": "tech"},
        {"name": "b", "weight": 3.0, "family": "tech"},
        {"name": "c", "weight": 1.0, "family": None},
        {"name": "watched", "weight": 0.0, "family": "tech"},
    ]
    metrics = {"a": 2.0, "b": 1.0, "c": 1.5, "held-out/books": 4.0, "held-out/web": 2.0}
    assert objective_bpb(metrics, {"tasks": tasks}) == pytest.approx(1.3)
    assert objective_bpb(metrics, {"tasks": tasks, "aggregate": "worst_family"}) == pytest.approx(1.5)
    assert objective_bpb(metrics, {"tasks": []}) == pytest.approx(3.0)
    assert objective_bpb(metrics, {"tasks": [], "aggregate": "worst_family"}) == pytest.approx(4.0)
    assert objective_bpb({}, {"tasks": tasks}) is None
    assert objective_bpb({}, {"tasks": [], "aggregate": "worst_family"}) is None
