import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.exponential.exponentials import LinearInteractionsLaw, LogLinearInteractionsLaw
from mixing.laws.exponential.parametric import ParametricRegression
from mixing.laws.linear import LinearLaw
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_domains_have_no_order,
    assert_expansion_is_the_second_order,
    assert_gradient_is_the_slope,
    assert_tasks_are_fitted_alone,
    swarm,
)

LAWS = [
    LinearInteractionsLaw(1),
    LinearInteractionsLaw(2),
    LogLinearInteractionsLaw(1),
    LogLinearInteractionsLaw(2),
]
DIRECTIONS = np.array([[1.2, -0.6, 0.3, -0.9, 0.2], [0.4, 0.9, -1.1, 0.1, -0.5]])


def interacting(weights: np.ndarray) -> np.ndarray:
    """Two tasks: one of rank 2, one of rank 1."""
    linear = weights @ np.array([[3.0, 2.5, 3.2, 2.2, 2.8], [2.0, 2.6, 2.1, 3.0, 2.4]]).T
    squares = np.square(weights @ DIRECTIONS.T)
    return linear + np.column_stack([squares.sum(1), 2 * squares[:, 0]])


def log_interacting(weights: np.ndarray) -> np.ndarray:
    exponent = weights @ np.array([[-1.0, 0.2, 0.1, -0.4, 0.3], [0.3, -0.7, 0.1, 0.2, -0.2]]).T
    return 1.5 + np.exp(exponent + np.square(weights @ DIRECTIONS[:1].T))


@pytest.mark.parametrize(
    ("law", "truth"),
    [(LinearInteractionsLaw(2), interacting), (LogLinearInteractionsLaw(1), log_interacting)],
    ids=["linear", "log-linear"],
)
def test_the_law_is_found_again_where_there_is_no_noise(law: ParametricRegression, truth) -> None:
    weights, fresh = swarm(0, 150, 5), swarm(9, 200, 5)
    predicted = law.fit(weights, truth(weights)).predict(fresh)[0]
    np.testing.assert_allclose(predicted, truth(fresh), atol=2e-3 * np.ptp(truth(fresh)))


def test_the_linear_law_alone_misses_interactions() -> None:
    """What the rank is for."""
    weights, fresh = swarm(1, 150, 5), swarm(2, 200, 5)
    missed = LinearLaw(1e-6).fit(weights, interacting(weights)).predict(fresh)[0] - interacting(fresh)
    assert np.abs(missed).mean() > 0.05


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_gradient_and_expansion(law: ParametricRegression) -> None:
    weights = swarm(3, 60, 5)
    fitted = law.fit(weights, log_interacting(weights))
    point = np.array([0.3, 0.3, 0.2, 0.1, 0.1])
    assert fitted.is_convex
    assert_gradient_is_the_slope(fitted, point)
    assert_expansion_is_the_second_order(fitted, point, np.array([0.5, 2.0]), factors_a_task=3)


@pytest.mark.parametrize("law", [LinearInteractionsLaw(1), LogLinearInteractionsLaw(1)], ids=str)
def test_neither_domains_nor_tasks_have_an_order(law: ParametricRegression) -> None:
    weights = swarm(4, 80, 5)
    metrics = log_interacting(weights) + 0.01 * np.random.default_rng(5).standard_normal((80, 2))
    assert_domains_have_no_order(law, weights, metrics, 1e-2)
    assert_tasks_are_fitted_alone(law, weights, metrics, 1e-6)


@pytest.mark.parametrize("law", LAWS, ids=str)
@given(seed=st.integers(0, 10**6))
@hypothesis_settings(max_examples=4, deadline=None)
def test_the_law_is_convex_whatever_it_was_fitted_to(law: ParametricRegression, seed: int) -> None:
    weights = swarm(seed, 20, 4)
    metrics = np.random.default_rng(seed).uniform(1, 2, (20, 2))
    assert_convex_along_chords(law.fit(weights, metrics), 4, seed)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(5, 6, 5)
    with pytest.raises(TooFewRuns):
        LinearInteractionsLaw().fit(weights, interacting(weights))
    with pytest.raises(InvalidSetting, match="rank"):
        LinearInteractionsLaw(rank=0)
    with pytest.raises(InvalidSetting, match="rank"):
        LogLinearInteractionsLaw(rank=0)
