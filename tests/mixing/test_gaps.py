"""What is missing, and what no mixture explains, costs its own measurement and nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixing.answer.proposal import propose
from mixing.answer.whatif import quick
from mixing.domains import Domains
from mixing.errors import TooFewRuns
from mixing.methods import combine, method_named
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.runs.noise import outliers
from mixing.runs.table import read_from
from tests.mixing.test_units import DOMAINS, TASKS, question_of, runs_of


def with_metrics(runs: Sequence[RunEvidence], changed: Mapping[int, Mapping[str, Any]]) -> list[RunEvidence]:
    """The runs, of some of them some metrics changed; None takes one away."""
    found = list(runs)
    for index, values in changed.items():
        metrics = {**runs[index].metrics, **values}
        kept = {name: value for name, value in metrics.items() if value is not None}
        found[index] = replace(runs[index], metrics=kept)
    return found


def answer(runs: Sequence[RunEvidence], question: Question | None = None) -> dict[str, Any]:
    return propose(question or question_of(), runs).to_dict()


@pytest.mark.parametrize("value", [50.0, 1e9])
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]], ids=["all tasks", "one task"])
def test_a_diverged_run_is_named_and_the_answer_is_the_one_without_it(
    value: float, tasks: Sequence[str]
) -> None:
    runs = runs_of(count=24)
    diverged = answer(with_metrics(runs, {5: dict.fromkeys(tasks, value)}))
    without = answer(with_metrics(runs, {5: dict.fromkeys(tasks)}))
    assert diverged["weights"] == pytest.approx(without["weights"], abs=1e-6)
    for mine, other in zip(
        (diverged["objective"], *diverged["tasks"]), (without["objective"], *without["tasks"]), strict=True
    ):
        assert mine["gain_interval"] == pytest.approx(other["gain_interval"], rel=1e-6)
    (warning,) = [one for one in diverged["warnings"] if one["code"] == "doubtful_run"]
    assert "Run run5 measured " in warning["message"]
    assert all(task in warning["message"] for task in tasks)
    assert "doubtful_run" not in {one["code"] for one in without["warnings"]}


def test_where_too_few_would_be_left_a_diverged_run_counts_and_is_named() -> None:
    """Of 12 runs 10 are needed: one may be set aside, three may not, and the answer is there all the same."""
    runs = runs_of(count=12)
    question = question_of()
    one = with_metrics(runs, {5: {TASKS[0]: 50.0}})
    assert [aside.run for aside in propose(question, one).learned.evidence.set_aside] == ["run5"]
    gaps = with_metrics(one, {1: {TASKS[0]: None}, 2: {TASKS[0]: None}})
    evidence = propose(question, gaps).learned.evidence
    assert not evidence.set_aside
    (note,) = [note for note in evidence.notes if "run5" in note]
    assert "counts all the same" in note


def test_two_diverged_runs_do_not_hide_each_other_and_an_accuracy_is_said_as_measured() -> None:
    runs = with_metrics(runs_of(count=24), {3: dict.fromkeys(TASKS, 50.0), 8: dict.fromkeys(TASKS, 1e9)})
    proposal = propose(question_of(), runs)
    assert {(one.run, one.task) for one in proposal.learned.evidence.set_aside} == {
        (run, task) for run in ("run3", "run8") for task in TASKS
    }
    assert all(1 < one.expected < 3 for one in proposal.learned.evidence.set_aside)


def test_honest_values_far_out_are_kept() -> None:
    """The slice of a domain that all runs but a few hold: these are far out, and the mixture explains it."""
    generator = np.random.default_rng(0)
    weights = generator.dirichlet(np.ones(5), 40)
    weights[:3, 0] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    slices = 1 + 0.05 * generator.standard_normal(40) + 2.0 * (weights[:, 0] == 0)
    assert slices[:3].min() > slices[3:].mean() + 30 * slices[3:].std()
    assert outliers(weights, slices[:, None], np.ones(40)) == []
    # A single one is unlike all others, so nothing can be said of it either.
    alone = np.delete(np.arange(40), [0, 1])
    assert outliers(weights[alone], slices[alone, None], np.ones(38)) == []
    slices[2] = 50.0
    (found,) = outliers(weights[alone], slices[alone, None], np.ones(38))
    assert (found.run, found.value) == (0, 50.0)


@pytest.mark.parametrize("seed", range(5))
def test_heavy_tails_are_no_outliers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(6), 40)
    values = 1 + (np.sqrt(weights) @ generator.uniform(0, 1, (6, 4)) + 0.05) ** -0.5
    assert outliers(weights, values + 0.02 * generator.standard_t(3, values.shape), np.ones(40)) == []


def test_a_task_that_some_runs_lack_is_fitted_to_the_others() -> None:
    """Half of the runs lack one task, two lack the other; who lacks what is said, and nothing else changes."""
    runs = runs_of(count=30)
    gaps = with_metrics(
        runs, {**{k: {"programs": None} for k in range(12)}, 20: {"prose": math.nan}, 21: {"prose": math.inf}}
    )
    proposal = propose(question_of(), gaps)
    document = proposal.to_dict()
    assert [(row["name"], row["runs"]) for row in document["tasks"]] == [("programs", 18), ("prose", 28)]
    # Each task as if it were alone on the runs that have it.
    for task, kept in (("programs", runs[12:]), ("prose", [*runs[:20], *runs[22:]])):
        alone = propose(
            question_of(objective={task: 1.0}),
            with_metrics(kept, {k: dict.fromkeys(set(TASKS) - {task}) for k in range(len(kept))}),
        )
        column = proposal.learned.evidence.tasks.index(task)
        mixtures = np.array([[run.mixture[name] for name in DOMAINS.names] for run in runs])
        np.testing.assert_allclose(
            proposal.learned.law.predict(mixtures)[0][:, column],
            alone.learned.law.predict(mixtures)[0][:, 0],
            rtol=1e-6,
        )
    assert document["objective"]["rank_correlation"] > 0.5
    assert document["objective"]["gain_interval"][0] < document["objective"]["gain"]
    notes = " ".join(document["notes"])
    assert "programs: no number for 12 of 30 runs (run0, run1, run10, run11, run2 and 7 more)" in notes or (
        "programs: no number for 12 of 30 runs (run0, run1, run2, run3, run4 and 7 more); fitted to the other 18."
        in notes
    )
    assert "prose: no number for 2 of 30 runs (run20: nan, run21: inf); fitted to the other 28." in notes


def test_tasks_that_no_run_has_together_still_give_an_answer_with_an_interval() -> None:
    """Each measured on another half: the objective's own held-out error is not known, the tasks' are."""
    halves = {k: {TASKS[k % 2]: None} for k in range(40)}
    document = answer(with_metrics(runs_of(count=40), halves))
    assert document["objective"]["rank_correlation"] is None
    assert document["objective"]["natural_interval"] is None
    assert all(row["rank_correlation"] > 0.5 for row in document["tasks"])
    low, high = document["objective"]["gain_interval"]
    assert low < document["objective"]["gain"] < high
    with pytest.raises(TooFewRuns, match="only 6 of 40 runs measured task 'programs'") as caught:
        answer(with_metrics(runs_of(count=40), {k: {"programs": None} for k in range(34)}))
    assert caught.value.names == ("programs",)


def test_a_watched_task_of_too_few_runs_is_left_out_and_says_so() -> None:
    question = question_of(objective={"prose": 1.0})
    document = answer(with_metrics(runs_of(), {k: {"programs": None} for k in range(15)}), question)
    assert document["left_out"] == {
        "programs": "only 5 of 20 runs measured task 'programs', and the regression needs 10"
    }


def test_a_domain_that_no_run_varied_widens_the_interval_and_is_named() -> None:
    """Where one that all runs lack is moved, the interval holds the true gain in 9 of 12 worlds at least."""
    names, held = [f"d{j}" for j in range(6)], 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        domains = Domains.of(dict(zip(names, 1e10 * generator.dirichlet(3 * np.ones(6)), strict=True)))
        likes = generator.uniform(0, 1.5, 6)

        def truth(weights: np.ndarray, likes: np.ndarray = likes) -> np.ndarray:
            return 0.8 + (np.sqrt(weights) @ likes + 0.1) ** -0.5

        weights = generator.dirichlet(np.ones(6), 24)
        weights[:, 2] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        values = truth(weights) + 0.005 * generator.standard_normal(24)
        runs = [
            RunEvidence(f"run{k}", dict(zip(names, row, strict=True)), {"prose": value})
            for k, (row, value) in enumerate(zip(weights.tolist(), values.tolist(), strict=True))
        ]
        document = answer(runs, question_of(domains=domains, objective={"prose": 1.0}))
        (warning,) = [one for one in document["warnings"] if one["code"] == "domain_not_varied"]
        assert "never varied d2;" in warning["message"]
        proposed = np.array([document["weights"][name] for name in names])
        low, high = document["objective"]["gain_interval"]
        held += low <= truth(domains.natural_weights) - truth(proposed) <= high
    assert held >= 9


def test_a_diverged_run_is_named_though_most_mixtures_are_the_same_to_the_last_bits() -> None:
    """In units of the median distance the others lie 10^8 away: the covariance is singular to rounding."""
    generator = np.random.default_rng(5)
    weights = generator.dirichlet(np.full(4, 3.0), 40)
    weights[:30] = weights[0] + 1e-9 * generator.standard_normal((30, 4))
    values = (1 + weights @ np.array([0.1, 0.2, 0.3, 0.4]) + 0.001 * generator.standard_normal(40))[:, None]
    assert outliers(weights, values, np.ones(40)) == []
    values[7] = 1e6
    (found,) = outliers(weights, values, np.ones(40))
    assert (found.run, found.column) == (7, 0)
    assert found.expected == pytest.approx(1.25, abs=0.1)


def test_a_diverged_run_is_named_among_runs_of_one_mixture() -> None:
    weights = np.tile([[0.2, 0.3, 0.5]], (12, 1))
    values = (1 + 0.01 * np.random.default_rng(6).standard_normal(12))[:, None]
    values[3] = 50.0
    (found,) = outliers(weights, values, np.ones(12))
    assert found.run == 3
    assert found.expected == pytest.approx(1, abs=0.02)


def test_a_run_that_lacks_a_little_of_a_mean_is_off_by_as_much_as_the_rest_of_it() -> None:
    """Where all tasks move together that is the mean itself; a run that lacks too much of it has none."""
    means, weights = np.array([1.0, 5.0, -2.0, 40.0]), np.array([[0.4, 0.3, 0.2, 0.1]])
    moved = np.random.default_rng(0).normal(size=20)
    metrics = means + (moved - moved.mean())[:, None]
    gaps = metrics.copy()
    gaps[0, 3], gaps[1, 2], gaps[2, :2] = np.nan, np.nan, np.nan
    complete, sure = read_from(weights, metrics)
    assert np.array_equal(complete, metrics @ weights.T)
    assert not sure.any()
    values, unsure = read_from(weights, gaps)
    assert np.isnan(values[2, 0])
    assert np.array_equal(values[3:], complete[3:])
    # The means over the runs that have a task are not those over all of them: hence not to the last bit.
    assert values[:2] == pytest.approx(complete[:2], abs=0.1)
    assert unsure[:2].max() < 0.01
    assert not unsure[3:].any()


def test_how_unsure_such_a_value_is_is_how_far_it_is_off() -> None:
    generator, weights = np.random.default_rng(1), np.full((1, 10), 0.1)
    metrics = generator.normal(size=(500, 1)) + generator.normal(size=(500, 10)) * np.arange(1, 11)
    gaps = np.where(np.arange(10) >= 8, np.nan, metrics)
    gaps[:250] = metrics[:250]
    values, unsure = read_from(weights, gaps)
    off = (values - metrics @ weights.T)[250:]
    assert off.std() == pytest.approx(np.sqrt(np.mean(unsure[250:] ** 2)), rel=0.15)


def test_an_objective_of_many_metrics_with_gaps_is_fitted_as_one_and_says_so() -> None:
    mixtures = np.random.default_rng(0).dirichlet([1, 2, 3], size=30)
    tasks = {f"t{k:03}": 1.0 for k in range(200)}
    runs = []
    for number, (a, b, c) in enumerate(mixtures.tolist()):
        values = {name: 2 - a**0.5 + 0.01 * k * b for k, name in enumerate(tasks)}
        values.pop(f"t{number:03}")
        runs.append(RunEvidence(f"r{number}", {"a": a, "b": b, "c": c}, values))
    asked = Question(domains=Domains.of({"a": 1, "b": 2, "c": 3}), objective=tasks, target_tokens=1.0)
    slow = replace(asked, domains=Domains.of({f"d{k}": 1.0 for k in range(40)}))
    lighter, note = quick(slow, runs * 20)
    assert lighter.parts.regression.endswith("-of-objective")
    assert note is not None
    recipe = combine(
        method_named("mixwright"), regression="effective-power-of-objective", granularity="aggregated"
    )
    document = propose(replace(asked, recipe=recipe), runs).to_dict()
    assert document["weights"]["a"] > 0.8
    assert any(one.startswith("Of objective 30 runs lack a part, 0.5% at most") for one in document["notes"])
    assert document["runs_used"] == 30
