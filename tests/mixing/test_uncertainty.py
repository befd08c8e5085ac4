"""The interval of the gain, on laws simple enough to know what it must be."""

from dataclasses import dataclass

import numpy as np
import pytest

from mixing.answer.uncertainty import MISFIT_SHARE, differences_of_pairs, gain_intervals
from mixing.laws.composed import joined, through
from mixing.laws.ensemble import FittedEnsemble
from mixing.laws.fitting import Refits
from mixing.laws.regression import Fitted
from mixing.objective import ObjectiveSpec, groups
from mixing.runs.evidence import Evidence
from mixing.runs.table import RunTable

NATURAL, PROPOSED = np.array([0.5, 0.5]), np.array([1.0, 0.0])
METRICS = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 4.0], [2.5, 3.0]])


@dataclass(frozen=True)
class Linear(Fitted):
    """f(p) = p . slopes of two tasks."""

    slopes: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = weights @ self.slopes
        return mean, np.zeros_like(mean)


LAW = Linear(np.array([[1.5, 2.0], [2.5, 3.0]]))  # the gains are 0.5 and 0.5


def evidence_of(worst: bool = False) -> Evidence:
    """Four runs of two tasks; b weighs three times what a does, or neither does and the worst counts."""
    spec = ObjectiveSpec({"a": 0.25, "b": 0.75})
    if worst:
        spec = ObjectiveSpec({"a": 1.0, "b": 1.0}, aggregation="worst family")
    table = RunTable.of(("x", "y"), ("a", "b"), np.tile(NATURAL, (4, 1)), METRICS)
    return Evidence(table, ("a", "b"), groups(spec, ("a", "b")), np.full(2, np.nan), {}, (), ())


def refits_of(*laws: Fitted, missed: np.ndarray | None = None) -> Refits:
    errors = np.zeros((2, 4, 2)) if missed is None else missed
    return Refits(tuple(laws), METRICS + errors, METRICS, np.tile(NATURAL, (4, 1)), 0.8)


def intervals_of(
    refits: Refits,
    evidence: Evidence | None = None,
    optima: np.ndarray | None = None,
    law: Fitted = LAW,
):
    chosen = np.tile(PROPOSED, (len(refits.laws), 1)) if optima is None else optima
    return gain_intervals(law, refits, evidence or evidence_of(), chosen, NATURAL, PROPOSED)


def test_refits_that_agree_and_miss_nothing_leave_no_doubt() -> None:
    found = intervals_of(refits_of(LAW, LAW, LAW))
    np.testing.assert_allclose(found.bounds[:-1], 0.5)
    np.testing.assert_allclose(found.bounds[-1], 0.5)
    assert found.optimism == 0
    assert (found.weight_spread == 0).all()


def test_the_interval_is_the_jackknifes() -> None:
    """Claims of 0.6 and 0.8 where the law says 0.5: off by -0.2 on average, +- 0.1, times 2 for five folds."""
    first, second = (Linear(np.array([[1.5, 2.0], [2.5 + extra, 3.0 + extra]])) for extra in (0.2, 0.6))
    found = intervals_of(refits_of(first, second))
    assert found.optimism == pytest.approx(0.2)
    np.testing.assert_allclose(found.bounds[-1], 0.5 - 0.2 + 1.6449 * 2 * 0.1 * np.array([-1, 1]), rtol=1e-4)
    np.testing.assert_allclose(found.bounds[:-1][0], found.bounds[-1])


def test_held_out_errors_widen_it_by_how_differently_they_miss_and_not_by_how_far() -> None:
    same = intervals_of(refits_of(LAW, LAW, missed=np.full((2, 4, 2), 7.0)))
    np.testing.assert_allclose(same.bounds[-1], 0.5)
    missed = np.zeros((2, 4, 2))
    missed[:, :2] = 0.3  # four of the six pairs differ by 0.3, so the 90% quantile does
    apart = intervals_of(refits_of(LAW, LAW, missed=missed))
    np.testing.assert_allclose(apart.bounds[-1], 0.5 + 0.3 * MISFIT_SHARE * np.array([-1, 1]))


def test_a_task_that_no_run_nearby_measured_is_judged_by_the_nearest_that_did() -> None:
    """Of twelve runs the eight at the natural distribution lack the first task, and so the objective."""
    weights = np.concatenate([np.tile(NATURAL, (8, 1)), np.tile([0.1, 0.9], (4, 1))])
    measured = np.tile(METRICS, (3, 1))
    errors = np.zeros((2, 12, 2))
    errors[:, 8:10, 0], measured[:8, 0] = 0.3, np.nan
    found = intervals_of(Refits((LAW, LAW), measured + errors, measured, weights, 0.8))
    np.testing.assert_allclose(np.ptp(found.bounds, axis=1), 2 * MISFIT_SHARE * np.array([0.3, 0.0, 0.075]))


def test_the_spread_of_the_weights_is_on_the_scale_of_all_runs() -> None:
    optima = np.array([[1.0, 0.0], [0.8, 0.2]])
    np.testing.assert_allclose(intervals_of(refits_of(LAW, LAW), optima=optima).weight_spread, 2 * 0.1)


def test_the_worst_family_is_chosen_mixture_by_mixture() -> None:
    """b is the worst at both ends: 2.5 at the natural distribution and 2 at the proposed one."""
    found = intervals_of(refits_of(LAW, LAW), evidence_of(worst=True))
    np.testing.assert_allclose(found.bounds[-1], 0.5)


def test_what_a_refit_says_far_outside_the_runs_is_not_counted_by_its_size() -> None:
    wild = Linear(np.array([[1.5, 2.0], [1e9, 1e9]]))
    found = intervals_of(refits_of(LAW, wild))
    assert np.abs(found.bounds[-1]).max() < 100


def test_the_gain_that_is_reported_is_within_reach_however_far_the_law_reaches() -> None:
    """Natural lies far outside what was measured: the law and its refits say so alike, and so does the interval."""
    far = Linear(np.array([[1.5, 2.0], [40.0, 40.0]]))
    refits = refits_of(far, far)
    found = gain_intervals(far, refits, evidence_of(), np.tile(PROPOSED, (2, 1)), NATURAL, PROPOSED)
    stated = (far.predict(NATURAL[None])[0] - far.predict(PROPOSED[None])[0])[0] @ [0.25, 0.75]
    assert found.bounds[-1][0] == pytest.approx(stated)
    assert found.bounds[-1][1] == pytest.approx(stated)


OTHER = Linear(np.array([[1.5, 2.5], [2.1, 3.0]]))
"""The gains are .3 and .25."""


def average(first: float, second: float) -> FittedEnsemble:
    """Of `LAW`, which counts so much for each task, and `OTHER`."""
    share = np.array([first, second])
    return FittedEnsemble((LAW, OTHER), np.stack([share, 1 - share]), np.zeros((2, 2)), ("law", "other"))


def test_members_that_disagree_about_the_gain_widen_it_by_their_deviation() -> None:
    """Two values a and b of probabilities s and 1 - s have the deviation |a - b| sqrt(s (1 - s))."""
    law = average(0.8, 0.5)
    found = intervals_of(refits_of(law, law), law=law)
    half = 1.6449 * np.array([0.2 * 0.4, 0.25 * 0.5])
    np.testing.assert_allclose(found.bounds[:2, 1] - found.bounds[:2, 0], 2 * half)
    np.testing.assert_allclose(found.bounds[:2].mean(1), [0.8 * 0.5 + 0.2 * 0.3, 0.5 * 0.5 + 0.5 * 0.25])
    shares, gains = np.array([0.575, 0.425]), np.array([0.5, 0.25 * 0.3 + 0.75 * 0.25])
    spread = np.sqrt(shares @ (gains - (0.25 * 0.46 + 0.75 * 0.375)) ** 2)  # b weighs three times what a does
    assert np.ptp(found.bounds[2]) == pytest.approx(2 * 1.6449 * spread)


def test_of_two_estimates_of_what_a_shape_misses_the_larger_counts() -> None:
    law, missed = average(0.8, 0.8), np.zeros((2, 4, 2))
    disagreement = 1.6449 * 0.2 * 0.4  # of the first task
    for size in (0.1, 1.0):
        missed[:, :2] = size
        found = intervals_of(refits_of(law, law, missed=missed), law=law)
        expected = max(disagreement, size * MISFIT_SHARE)
        np.testing.assert_allclose(np.ptp(found.bounds[0]), 2 * expected, rtol=1e-9)


def test_what_a_member_says_of_a_task_it_has_no_share_of_counts_nowhere() -> None:
    law = average(1.0, 1.0)
    found = intervals_of(refits_of(law), law=law)
    np.testing.assert_allclose(found.bounds, 0.5)


def test_tasks_fitted_apart_and_laws_read_through_a_map_keep_their_members_disagreement() -> None:
    law, alone = average(0.8, 0.5), Linear(np.array([[1.0], [2.0]]))
    shares, means = joined([alone, law], [np.array([1]), np.array([0, 2])], ["alone", "law"]).by_member(
        np.eye(2)
    )
    np.testing.assert_allclose(shares, [[0.8, 1.0, 0.5], [0.2, 0.0, 0.5]])
    np.testing.assert_allclose(means[:, :, [0, 2]], law.by_member(np.eye(2))[1])
    np.testing.assert_allclose(means[0, :, 1], [1.0, 2.0])
    swapped = through(law, np.eye(2)[::-1]).by_member(np.eye(2)[::-1])
    np.testing.assert_allclose(swapped[1], law.by_member(np.eye(2))[1])


@pytest.mark.parametrize("runs", [2, 3, 8, 9, 33, 34])
def test_of_few_runs_every_pair_counts_once(runs: int) -> None:
    errors = np.random.default_rng(runs).normal(size=(3, 2, runs))
    pairs = [np.abs(errors[:, :, i] - errors[:, :, j]).mean(axis=0) for i in range(runs) for j in range(i)]
    assert np.sort(differences_of_pairs(errors), axis=1) == pytest.approx(np.sort(np.array(pairs).T, axis=1))


def test_of_many_runs_some_pairs_stand_for_all() -> None:
    errors = np.random.default_rng(0).normal(size=(2, 40, 170)) * np.linspace(0.5, 2, 170)
    first, second = np.triu_indices(170, 1)
    every = np.abs(errors[:, :, first] - errors[:, :, second]).mean(axis=0)
    ratios = np.quantile(differences_of_pairs(errors), 0.9, axis=1) / np.quantile(every, 0.9, axis=1)
    assert ratios.mean() == pytest.approx(1, abs=0.005)
    assert ratios.std() < 0.02
