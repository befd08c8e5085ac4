"""The held-out runs as they are told: in the metric's own sense, in one order, scored as the answer scores them."""

import numpy as np
import pytest

from mixing.answer.held_out import held_out
from mixing.answer.proposal import propose
from mixing.answer.whatif import Judge
from mixing.domains import Domains
from mixing.methods import combine, method_named
from mixing.objective import ObjectiveSpec
from mixing.question import Question
from mixing.runs.evidence import RunEvidence

TOKENS = {"books": 1e9, "code": 3e9, "web": 6e9}


@pytest.fixture(scope="module")
def runs() -> tuple[RunEvidence, ...]:
    generator = np.random.default_rng(0)
    rows = generator.dirichlet([1, 3, 6], size=30)
    return tuple(
        RunEvidence(
            f"run-{number}",
            dict(zip(TOKENS, row.tolist(), strict=True)),
            {"reading": 2 - float(row[0]) + noise, "solved": 0.2 + 0.5 * float(row[1]) + noise},
        )
        for number, (row, noise) in enumerate(zip(rows, 0.01 * generator.standard_normal(30), strict=True))
    )


@pytest.fixture(scope="module")
def question() -> Question:
    return Question(
        domains=Domains.of(TOKENS),
        recipe=combine(method_named("mixwright"), regression="linear"),
        objective=ObjectiveSpec(
            {"reading": 0.75, "solved": 0.25},
            directions={"solved": "higher"},
            turned={"solved": "error rate"},
        ),
        target_tokens=1e10,
    )


def test_runs_are_told_as_they_were_measured_beside_how_far_they_are_from_natural(
    question: Question, runs: tuple[RunEvidence, ...]
) -> None:
    said = held_out(question, Judge.of(question, runs).learned)
    reading, solved = said["tasks"]
    told = sorted(zip(reading["measured"], solved["measured"], said["moved"], strict=True))
    natural = np.array(list(TOKENS.values())) / sum(TOKENS.values())
    expected = sorted(
        (
            run.metrics["reading"],
            run.metrics["solved"],
            float(np.abs(np.array(list(run.mixture.values())) - natural).sum() / 2),
        )
        for run in runs
    )
    np.testing.assert_allclose(told, expected, rtol=1e-12)
    assert (reading["direction"], solved["direction"]) == ("lower", "higher")
    for column in said["tasks"]:  # a line's own shape: what is missed is the noise
        np.testing.assert_allclose(column["predicted"], column["measured"], atol=0.05)


def test_they_are_scored_as_the_answer_scores_them(question: Question, runs: tuple[RunEvidence, ...]) -> None:
    said, answer = held_out(question, Judge.of(question, runs).learned), propose(question, runs).to_dict()
    by_name = {task["name"]: task for task in answer["tasks"]}
    for column in said["tasks"]:
        for score in ("rank_correlation", "mae"):
            assert column[score] == pytest.approx(by_name[column["name"]][score])
    assert said["objective"]["rank_correlation"] == pytest.approx(answer["objective"]["rank_correlation"])


def test_the_tasks_that_count_for_most_come_first(question: Question, runs: tuple[RunEvidence, ...]) -> None:
    learned = Judge.of(question, runs).learned
    assert [task["name"] for task in held_out(question, learned, most=1)["tasks"]] == ["reading"]
    assert held_out(question, learned, most=0)["tasks"] == []
