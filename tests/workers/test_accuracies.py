"""What an accuracy needs before it is fitted, and that a task measured before may be the other metric now."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mixing.objective import Task, objective_of
from mixing.runs.evidence import RunEvidence
from mixing.sense import sense_of
from mixing.terms import TaskGuard
from store.documents import OptimizationDocument, TaskDocument
from store.question import JobQuestion, OlderRuns
from store.revisions.past_runs import _series_of

QUIZ = TaskDocument(
    name="quiz", path="/quiz", metric="accuracy", normalization="character", examples=10, digest="d"
)
PLAIN = TaskDocument(name="plain", path="/plain", examples=5, digest="e")


def asked(*runs: dict[str, float], tasks: tuple[TaskDocument, ...] = (QUIZ, PLAIN)) -> JobQuestion:
    """Runs of these metrics, for these tasks."""
    document = OptimizationDocument(target_tokens=1.0, tasks=tasks)
    evidence = (RunEvidence(f"run{number}", {}, metrics) for number, metrics in enumerate(runs))
    return JobQuestion(document=document, tokens={}, runs=tuple(evidence))


def test_only_a_perfect_accuracy_is_moved_and_by_half_a_question() -> None:
    measured = {"quiz": 1.0, "plain": 1.7, "held-out/books": 2.0}
    perfect, good = asked(measured, {"quiz": 0.9}).evidence()
    assert perfect.metrics == {"quiz": 0.95, "plain": 1.7, "held-out/books": 2.0}
    assert good.metrics == {"quiz": 0.9}
    (old,) = asked({"old": 1.0}, tasks=(TaskDocument(name="old", path="/old"),)).evidence()
    assert old.metrics == {"old": 1.0}, "stored before there were accuracies"


def test_the_standard_error_is_the_binomial_one() -> None:
    older = OlderRuns(revision="2", lineage=(), runs=(("1", RunEvidence("older", {}, {"quiz": 1.0})),))
    question = replace(asked({"quiz": 0.5}, {"quiz": 0.7}), older=older)
    evidence: dict[str, Any] = {"tasks": [{"name": "quiz"}, {"name": "plain"}], "notes": ["before"]}
    found = question.with_standard_errors(evidence)
    p = 2.2 / 3
    assert found["tasks"][0]["standard_error"] == pytest.approx(math.sqrt(p * (1 - p) / 10))
    assert found["tasks"][1] == {"name": "plain"}
    assert found["notes"][0] == "before"
    assert "1 of 3 runs" in found["notes"][1]


@pytest.mark.parametrize(
    ("before", "now", "series"),
    [
        ({}, {}, "quiz"),
        ({"metric": "bpb"}, {}, "quiz/accuracy"),
        ({}, {"metric": "bpb"}, "quiz/bpb"),
        ({"normalization": "token"}, {}, None),
        ({"metric": "bpb", "normalization": "token"}, {}, None),
        ({"metric": "bpb", "normalization": "token"}, {"metric": "bpb"}, "quiz"),
        ({"digest": "other"}, {}, None),
    ],
)
def test_an_older_run_counts_by_what_was_measured_on_it(
    before: dict[str, Any], now: dict[str, Any], series: str | None
) -> None:
    optimization: Any = SimpleNamespace(created_at=0.0)
    assert _series_of(replace(QUIZ, **before), replace(QUIZ, **now), optimization) == series


def test_an_accuracy_is_minimised_as_its_error_and_told_as_itself() -> None:
    tasks = [Task(name="quiz", metric="accuracy"), Task(name="plain")]
    spec = objective_of(tasks, ["a", "b"], "per task", worst_family=False)
    assert spec.lower_is_better("quiz", 0.75) == 0.25
    assert spec.lower_is_better("plain", 0.75) == 0.75
    told = sense_of(spec, ["quiz"]).pair(0.75, 0.5)
    assert told == {"unit": "accuracy", "direction": "higher", "natural": 0.25, "proposed": 0.5}
    assert sense_of(spec, ["plain"]).pair(2.0, 1.5)["unit"] == "BPB"
    assert sense_of(spec, ["quiz", "plain"]).pair(2.0, 1.5) == {
        "unit": None,
        "direction": "lower",
        "natural": 2.0,
        "proposed": 1.5,
    }


def test_a_guard_rail_has_one_bound() -> None:
    assert TaskGuard("quiz", at_least=0.5).name == TaskGuard("quiz", at_most=0.5).name
    with pytest.raises(Exception, match="needs one of"):
        TaskGuard("quiz", at_least=0.5, at_most=0.7)
