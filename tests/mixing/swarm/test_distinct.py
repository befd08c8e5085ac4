import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from benchmarks.sample import unvaried
from mixing.swarm.filling import distinct, effective_runs


@given(st.integers(1, 40), st.floats(0.0, 0.6), st.integers(0, 2**32))
@hypothesis_settings(max_examples=60, deadline=None)
def test_no_two_kept_are_near_and_every_dropped_one_had_an_earlier_neighbour(
    runs: int, distance: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(4), size=runs)
    weights = weights[generator.integers(0, runs, size=2 * runs)]
    kept = distinct(weights, distance)
    apart = np.abs(weights[:, None] - weights[None]).sum(2)
    among = apart[np.ix_(kept, kept)]
    assert (among[~np.eye(kept.sum(), dtype=bool)] > distance).all()
    for row in np.flatnonzero(~kept):
        assert apart[row, :row].min() <= distance
    assert kept[0]


def test_a_hundred_thousand_equal_rows_are_one() -> None:
    assert distinct(np.full((100_000, 3), 1 / 3), 1e-5).sum() == 1


def test_what_a_swarm_cannot_identify_is_named() -> None:
    generator = np.random.default_rng(0)
    free = generator.dirichlet(np.ones(5), size=40)
    weights = np.zeros((40, 8))
    weights[:, :4] = 0.5 * free[:, :4]
    weights[:, 4] = 0.1  # constant
    weights[3, 5] = 0.05  # in a single run
    weights[:, 6] = 0.2 * free[:, 0]  # always in one proportion to the first
    weights[:, 7] = 1 - weights.sum(1)
    names = ("first", "b", "c", "d", "constant", "once", "follower", "rest")
    assert set(unvaried(weights, names)) == {"constant", "once", "first", "follower"}


def test_effective_runs_count_the_far_end_of_the_range() -> None:
    weights = np.zeros((1000, 2))
    weights[:5, 0] = 0.3
    assert effective_runs(weights)[0] == pytest.approx(5 * (1 - 5 / 1000))
    assert effective_runs(weights)[1] == 0
