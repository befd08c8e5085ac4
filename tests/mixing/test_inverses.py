"""What the runs leave open has the prior's spread, whatever processor inverts the matrix."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixing.inverses import floored_inverse, posterior_covariance, posterior_root


def exact_inverse(matrix: np.ndarray) -> np.ndarray:
    """By Gauss and Jordan in rational numbers."""
    size = len(matrix)
    rows = [
        [Fraction(float(value)) for value in row] + [Fraction(int(i == j)) for j in range(size)]
        for i, row in enumerate(matrix)
    ]
    for pivot in range(size):
        best = max(range(pivot, size), key=lambda row: abs(rows[row][pivot]))
        rows[pivot], rows[best] = rows[best], rows[pivot]
        rows[pivot] = [value / rows[pivot][pivot] for value in rows[pivot]]
        for row in range(size):
            if row != pivot:
                rows[row] = [a - rows[row][pivot] * b for a, b in zip(rows[row], rows[pivot], strict=True)]
    return np.array([[float(value) for value in row[size:]] for row in rows])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_it_is_the_inverse_of_the_sum(seed: int) -> None:
    generator = np.random.default_rng(seed)
    jacobian, prior = generator.standard_normal((7, 4)), generator.standard_normal((4, 4))
    data, precision = jacobian.T @ jacobian, prior @ prior.T + np.eye(4)
    exact = exact_inverse(data + precision)
    np.testing.assert_allclose(posterior_covariance(data[None], precision)[0], exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("known", [1e8, 1e16, 1e24, 1e32])
def test_a_direction_no_run_speaks_of_keeps_the_priors_spread(known: float) -> None:
    # The runs know the sum of two parameters, as well as one likes, and nothing of their difference.
    data = known * np.ones((1, 2, 2))
    covariance = posterior_covariance(data, np.eye(2) / 9.0)[0]
    difference, total = np.array([1.0, -1.0]), np.array([1.0, 1.0])
    # Var(a - b) = 9 + 9 as in the prior; Var(a + b) = 1 / (known + 1 / 18)
    assert difference @ covariance @ difference == pytest.approx(18.0, rel=1e-6)
    assert 0 <= total @ covariance @ total <= 1.1 / known + 1e-12
    assert np.linalg.eigvalsh(covariance)[-1] <= 9.0 * (1 + 1e-9)


def test_rounding_below_zero_is_not_taken_for_knowledge() -> None:
    data = np.array([[[1e16, 1e16], [1e16, 1e16 - 4.0]]])  # by rounding, its lower eigenvalue is -2
    covariance = posterior_covariance(data, np.eye(2))[0]
    assert np.linalg.eigvalsh(covariance)[-1] <= 1 + 1e-9


@given(st.integers(2, 40), st.integers(1, 10**6), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_information_of_too_few_runs_is_inverted_all_the_same(width: int, scale: int, seed: int) -> None:
    # Fewer runs than parameters: the matrix is singular, and what no run speaks of has the widest variance there is.
    rows = scale * np.random.default_rng(seed).standard_normal((width // 2, width))
    information = rows.T @ rows
    covariance = floored_inverse(information[None], 1e-10)[0]
    assert np.linalg.eigvalsh(covariance)[-1] == pytest.approx(1e10 / np.trace(information), rel=1e-3)
    # Of what the runs do speak of it is the pseudo-inverse, which drops the rest.
    predicted = np.einsum("kj,jl,kl->k", rows, covariance, rows)
    exact = np.einsum("kj,jl,kl->k", rows, np.linalg.pinv(information, rcond=1e-12, hermitian=True), rows)
    np.testing.assert_allclose(predicted, exact, rtol=1e-4)  # units in the last place times 1e10


def test_of_a_matrix_that_is_all_zeros_there_is_a_floor_too() -> None:
    np.testing.assert_allclose(
        floored_inverse(np.zeros((2, 3, 3)), 1e-3), np.tile(1e3 * np.eye(3), (2, 1, 1))
    )


def test_a_prior_that_leaves_a_direction_open_is_decided_by_the_runs() -> None:
    # The prior knows the sum of two parameters alone, the runs their difference alone; together 2 on the diagonal.
    data, precision = np.array([[[1.0, -1.0], [-1.0, 1.0]]]), np.ones((2, 2))
    np.testing.assert_allclose(posterior_covariance(data, precision)[0], np.eye(2) / 2, atol=1e-5)


@given(st.floats(0, 30), st.floats(-2, 4), st.floats(-2, 4))
@settings(max_examples=50, deadline=None)
def test_a_root_is_real_however_much_better_the_runs_know_one_direction(
    known: float, first: float, second: float
) -> None:
    data, precision = 10**known * np.array([[1.0, 2.0], [2.0, 4.0]]), np.diag([10**first, 10**second])
    deviations = np.diagonal(precision) ** -0.5
    root = posterior_root(data, np.diag(deviations))
    if known < 10:
        exact = exact_inverse(data + precision)
        np.testing.assert_allclose(root @ root.T, exact, atol=1e-5 * np.abs(exact).max())
    widths = np.linalg.eigvalsh(root @ root.T / np.outer(deviations, deviations))
    assert -1e-12 <= widths[0] <= widths[-1] <= 1 + 1e-9
