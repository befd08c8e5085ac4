import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.capped_simplex import into_bounds, into_capped_simplex, water_fill


@given(st.integers(2, 12), st.integers(0, 2**32))
@hypothesis_settings(max_examples=60, deadline=None)
def test_many_rows_at_once_are_the_same_as_one_by_one(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(size, 0.2), size=6)
    caps = generator.random((6, size)) * 0.5
    together = water_fill(weights, caps)
    for row in range(6):
        np.testing.assert_allclose(together[row], water_fill(weights[row], caps[row]), atol=1e-15)


def test_water_filling_is_the_point_nearest_in_relative_entropy() -> None:
    """argmin KL(p || w) under caps scales w by one factor and clips it; held against an exponential-cone solver."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        weights = generator.dirichlet(np.ones(6))
        caps = generator.dirichlet(np.ones(6)) * 1.4
        point = cp.Variable(6)
        cp.Problem(cp.Minimize(cp.sum(cp.kl_div(point, weights))), [cp.sum(point) == 1, point <= caps]).solve(
            solver=cp.CLARABEL
        )
        np.testing.assert_allclose(water_fill(weights, caps), point.value, atol=1e-5)


def test_shares_of_every_size_are_filled() -> None:
    weights = np.array([1.0, 1e-30, 1e-150, 1e-199])
    filled = water_fill(weights, np.array([0.4, 0.3, 0.2, 0.5]))
    np.testing.assert_allclose(filled, [0.4, 0.3, 0.2, 0.1])


def test_absent_domains_take_only_what_the_present_cannot_hold() -> None:
    weights = np.array([0.9, 0.1, 0.0, 0.0])
    filled = into_capped_simplex(weights, np.array([0.3, 0.3, 0.9, 0.9]), np.array([1.0, 1.0, 1.0, 3.0]))
    np.testing.assert_allclose(filled, [0.3, 0.3, 0.1, 0.3])


def test_lower_bounds_hold_and_a_row_inside_stays() -> None:
    lower, upper = np.array([0.2, 0.1, 0.0]), np.array([0.5, 0.6, 0.4])
    inside = np.array([0.3, 0.4, 0.3])
    np.testing.assert_allclose(into_bounds(inside, lower, upper, 1.0, np.ones(3)), inside, atol=1e-15)
    corner = into_bounds(np.array([0.0, 0.0, 1.0]), lower, upper, 1.0, np.ones(3))
    assert corner.sum() == pytest.approx(1)
    assert (corner >= lower).all()
    assert (corner <= upper).all()
    assert corner[2] == 0.4
