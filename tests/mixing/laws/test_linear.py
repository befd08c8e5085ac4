import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.linear import LinearLaw
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_domains_have_no_order,
    assert_expansion_is_the_second_order,
    assert_gradient_is_the_slope,
    assert_tasks_are_fitted_alone,
    swarm,
)


def losses(weights: np.ndarray, noise: float = 0.02) -> np.ndarray:
    generator = np.random.default_rng(1)
    coefficients = generator.uniform(2, 4, (3, weights.shape[1]))
    return weights @ coefficients.T + noise * generator.standard_normal((len(weights), 3))


def test_without_a_ridge_it_is_ordinary_least_squares() -> None:
    weights = swarm(0, 40, 5)
    metrics, fresh = losses(weights), swarm(9, 30, 5)
    # Weights sum to 1, so one of them with an intercept says the same as all without.
    expected = LinearRegression().fit(weights[:, 1:], metrics).predict(fresh[:, 1:])
    np.testing.assert_allclose(
        LinearLaw(ridge=1e-9).fit(weights, metrics).predict(fresh)[0], expected, atol=1e-6
    )


def test_a_constant_added_to_a_metric_is_added_to_its_predictions() -> None:
    """The ridge leaves the intercept alone."""
    weights = swarm(2, 20, 5)
    metrics = losses(weights)
    law = LinearLaw(ridge=3.0)
    shifted = law.fit(weights, metrics + 7).predict(weights)[0]
    np.testing.assert_allclose(shifted, law.fit(weights, metrics).predict(weights)[0] + 7, atol=1e-9)


def test_gradient_expansion_and_order() -> None:
    weights = swarm(3, 30, 4)
    metrics = losses(weights)
    fitted = LinearLaw().fit(weights, metrics)
    point = np.array([0.4, 0.3, 0.2, 0.1])
    assert fitted.is_convex
    assert_gradient_is_the_slope(fitted, point)
    assert_expansion_is_the_second_order(fitted, point, np.array([0.5, 0.0, 2.0]))
    assert_domains_have_no_order(LinearLaw(), weights, metrics, 1e-9)
    assert_tasks_are_fitted_alone(LinearLaw(), weights, metrics, 1e-9)


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=5, deadline=None)
def test_the_law_is_convex(seed: int) -> None:
    weights = swarm(seed, 20, 4)
    assert_convex_along_chords(LinearLaw().fit(weights, losses(weights)), 4, seed)


def test_the_stated_deviation_is_that_of_predictions_over_repeated_noise() -> None:
    weights, fresh = swarm(4, 40, 4), swarm(5, 3, 4)
    fits = []
    for seed in range(200):
        clean = weights @ np.array([[3.0, 2.5, 3.5, 2.0]]).T
        noise = 0.05 * np.random.default_rng(seed).standard_normal(clean.shape)
        fits.append(LinearLaw(ridge=1e-6).fit(weights, clean + noise).predict(fresh))
    spread = np.std([mean for mean, _ in fits], axis=0)
    np.testing.assert_allclose(np.mean([std for _, std in fits], axis=0), spread, rtol=0.2)


def test_fits_in_one_batch_predict_what_fits_one_after_the_other_do() -> None:
    weights = swarm(6, 40, 4)
    metrics = losses(weights)
    kept = np.random.default_rng(7).random((5, 40)) < 0.8
    law = LinearLaw()
    assert law.fits_subsets_at_once
    single = [law.fit(weights[rows], metrics[rows]).predict(weights)[0] for rows in kept]
    # The ridge is a share of all runs' moments.
    np.testing.assert_allclose(law.held_out(weights, metrics, kept), single, atol=1e-2)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(8, 5, 5)
    with pytest.raises(TooFewRuns) as caught:
        LinearLaw().fit(weights, losses(weights))
    assert caught.value.needed == 6
    weights = swarm(8, 9, 5)
    with pytest.raises(InvalidMetrics):
        LinearLaw().fit(weights, np.full((9, 1), np.inf))
    with pytest.raises(InvalidSetting):
        LinearLaw(ridge=0.0)
