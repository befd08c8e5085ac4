"""The interval of the gain, on laws simple enough to know what it must be."""

from dataclasses import dataclass

import numpy as np
import pytest

from mixing.answer.uncertainty import MISFIT_SHARE, gain_intervals
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


def refits_of(*laws: Linear, missed: np.ndarray | None = None) -> Refits:
    errors = np.zeros((2, 4, 2)) if missed is None else missed
    return Refits(tuple(laws), METRICS + errors, METRICS, np.tile(NATURAL, (4, 1)), 0.8)


def intervals_of(refits: Refits, evidence: Evidence | None = None, optima: np.ndarray | None = None):
    chosen = np.tile(PROPOSED, (len(refits.laws), 1)) if optima is None else optima
    return gain_intervals(LAW, refits, evidence or evidence_of(), chosen, NATURAL, PROPOSED)


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
