import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.exponential.exponentials import ExponentialPowerLaw, ExponentialsLaw
from mixing.laws.exponential.parametric import ParametricRegression
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_domains_have_no_order,
    assert_expansion_is_the_second_order,
    assert_gradient_is_the_slope,
    assert_tasks_are_fitted_alone,
    swarm,
)

LAWS = [ExponentialsLaw(1), ExponentialsLaw(2), ExponentialPowerLaw()]


def two_exponentials(weights: np.ndarray) -> np.ndarray:
    first = np.array([[-6.0, 0.3, 0.2, 0.5], [0.4, -3.0, 0.1, 0.6]])[:, : weights.shape[1]]
    second = np.array([[-0.5, -1.5, -0.2, -0.7], [-0.3, -0.6, -1.8, -0.4]])[:, : weights.shape[1]]
    return 1.2 + np.exp(weights @ first.T) + np.exp(weights @ second.T)


def exponential_and_power(weights: np.ndarray) -> np.ndarray:
    slopes = np.array([[-1.0, 0.3, 0.2, 0.0], [0.4, -0.8, 0.1, 0.2]])[:, : weights.shape[1]]
    factors = np.array([[0.2, 0.02, 0.01, 0.1], [0.01, 0.1, 0.15, 0.02]])[:, : weights.shape[1]]
    return 1.5 + np.exp(weights @ slopes.T) + (weights + 1e-3) ** -0.4 @ factors.T


@pytest.mark.parametrize(
    ("law", "truth"),
    [(ExponentialsLaw(2), two_exponentials), (ExponentialPowerLaw(), exponential_and_power)],
    ids=lambda item: getattr(item, "__name__", type(item).__name__),
)
def test_the_law_is_found_again_where_there_is_no_noise(law: ParametricRegression, truth) -> None:
    weights, fresh = swarm(0, 150, 4), swarm(9, 200, 4)
    predicted = law.fit(weights, truth(weights)).predict(fresh)[0]
    np.testing.assert_allclose(predicted, truth(fresh), atol=2e-3 * np.ptp(truth(fresh)))


def test_one_exponential_is_not_enough_for_two() -> None:
    """What the second term is for."""
    weights, fresh = swarm(0, 150, 4), swarm(9, 200, 4)
    metrics, truth = two_exponentials(weights), two_exponentials(fresh)
    one, two = (
        np.abs(ExponentialsLaw(terms).fit(weights, metrics).predict(fresh)[0] - truth).mean()
        for terms in (1, 2)
    )
    assert two < 0.1 * one


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_gradient_and_expansion(law: ParametricRegression) -> None:
    weights = swarm(3, 40, 4)
    fitted = law.fit(weights, two_exponentials(weights))
    point = np.array([0.4, 0.3, 0.2, 0.1])
    assert fitted.is_convex
    assert_gradient_is_the_slope(fitted, point)
    assert_expansion_is_the_second_order(fitted, point, np.array([0.5, 2.0]), factors_a_task=2)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_neither_domains_nor_tasks_have_an_order(law: ParametricRegression) -> None:
    weights = swarm(4, 60, 4)
    metrics = two_exponentials(weights) + 0.01 * np.random.default_rng(5).standard_normal((60, 2))
    assert_domains_have_no_order(law, weights, metrics, 5e-3)
    assert_tasks_are_fitted_alone(law, weights, metrics, 1e-6)


@pytest.mark.parametrize("law", LAWS, ids=str)
@given(seed=st.integers(0, 10**6))
@hypothesis_settings(max_examples=4, deadline=None)
def test_the_law_is_convex_whatever_it_was_fitted_to(law: ParametricRegression, seed: int) -> None:
    weights = swarm(seed, 20, 4)
    metrics = np.random.default_rng(seed).uniform(1, 2, (20, 2))
    assert_convex_along_chords(law.fit(weights, metrics), 4, seed)


def test_the_stated_deviation_covers_the_truth() -> None:
    """Of 90% intervals over many worlds about 90% hold the truth."""
    covered = []
    for seed in range(15):
        weights, fresh = swarm(seed, 60, 4), swarm(100 + seed, 20, 4)
        noise = 0.02 * np.random.default_rng(seed).standard_normal((60, 2))
        mean, std = ExponentialPowerLaw().fit(weights, exponential_and_power(weights) + noise).predict(fresh)
        covered.append(np.abs(mean - exponential_and_power(fresh)) <= 1.645 * std)
    assert 0.80 <= np.mean(covered) <= 0.99


def test_a_few_runs_gone_wrong_hardly_move_the_law() -> None:
    """Student's t; least squares would be off by several times as much."""
    weights, fresh = swarm(6, 80, 4), swarm(7, 100, 4)
    metrics = two_exponentials(weights) + 0.01 * np.random.default_rng(8).standard_normal((80, 2))
    spoiled = metrics.copy()
    spoiled[:4] += 1.0
    law = ExponentialsLaw(1)
    honest = law.fit(weights[4:], metrics[4:]).predict(fresh)[0]
    assert np.abs(law.fit(weights, spoiled).predict(fresh)[0] - honest).mean() < 0.01


def test_fits_in_one_batch_predict_what_fits_one_after_the_other_do() -> None:
    weights = swarm(2, 60, 4)
    metrics = exponential_and_power(weights)
    kept = np.random.default_rng(4).random((4, 60)) < 0.8
    law = ExponentialPowerLaw()
    assert law.fits_subsets_at_once
    single = [law.fit(weights[rows], metrics[rows]).predict(weights)[0] for rows in kept]
    np.testing.assert_allclose(law.held_out(weights, metrics, kept), single, atol=1e-3)


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(5, 6, 5)
    with pytest.raises(TooFewRuns) as caught:
        ExponentialsLaw().fit(weights, np.ones((6, 1)))
    assert caught.value.needed == 7
    weights = swarm(5, 9, 5)
    with pytest.raises(InvalidMetrics, match="task 0 has the same metric"):
        ExponentialsLaw().fit(weights, np.ones((9, 1)))
    with pytest.raises(InvalidSetting, match="terms"):
        ExponentialsLaw(terms=0)
    with pytest.raises(InvalidSetting, match="eps"):
        ExponentialPowerLaw(eps=0.0)
