import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.laws.exponential.parametric import FittedLaw, ParametricRegression
from mixing.laws.powers.power_laws import AutoScaleLaw, BiMixLaw
from tests.mixing.laws.law_checks import (
    assert_convex_along_chords,
    assert_domains_have_no_order,
    assert_expansion_is_the_second_order,
    assert_gradient_is_the_slope,
    assert_tasks_are_fitted_alone,
    swarm,
)

LAWS = [BiMixLaw(), AutoScaleLaw()]


def bimix(weights: np.ndarray) -> np.ndarray:
    factors = np.array([[0.3, 0.02, 0.1, 0.05], [0.02, 0.2, 0.05, 0.15]])
    exponents = np.array([[0.3, 0.2, 0.5, 0.4], [0.4, 0.35, 0.2, 0.3]])
    powers = (weights[:, None, :] + 1e-2) ** -exponents
    return 1.5 + (factors * powers).sum(2)


def autoscale(weights: np.ndarray) -> np.ndarray:
    shares = np.array([[0.02, 0.1, 0.05, 0.3], [0.2, 0.02, 0.1, 0.05]])
    exponents = np.array([[0.6, 1.0, 0.8, 0.7], [0.9, 0.5, 0.7, 0.8]])
    return 1.5 + ((30.0 * (shares + weights[:, None, :])) ** -exponents).sum(2)


@pytest.mark.parametrize(
    ("law", "truth"), [(BiMixLaw(), bimix), (AutoScaleLaw(), autoscale)], ids=["bimix", "autoscale"]
)
def test_the_law_is_found_again_where_there_is_no_noise(law: ParametricRegression, truth) -> None:
    weights, fresh = swarm(0, 150, 4), swarm(9, 200, 4)
    predicted = law.fit(weights, truth(weights)).predict(fresh)[0]
    np.testing.assert_allclose(predicted, truth(fresh), atol=2e-3 * np.ptp(truth(fresh)))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_gradient_and_expansion(law: ParametricRegression) -> None:
    weights = swarm(3, 40, 4)
    fitted = law.fit(weights, bimix(weights))
    point = np.array([0.4, 0.3, 0.2, 0.1])
    assert fitted.is_convex
    assert_gradient_is_the_slope(fitted, point)
    assert_expansion_is_the_second_order(fitted, point, np.array([0.5, 2.0]))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_more_of_any_domain_alone_never_hurts(law: ParametricRegression) -> None:
    """Factors and exponents are positive, whatever the runs say."""
    weights = swarm(6, 40, 4)
    rising = 1.0 + weights @ np.array([[3.0], [0.2], [0.5], [0.1]])
    assert (law.fit(weights, rising).gradient(weights) <= 0).all()  # type: ignore[attr-defined]


def test_the_least_loss_of_autoscale_lies_below_every_run() -> None:
    weights = swarm(7, 40, 4)
    metrics = autoscale(weights)
    fitted = AutoScaleLaw().fit(weights, metrics)
    assert isinstance(fitted, FittedLaw)
    assert (fitted.location - np.exp(fitted.parameters[:, 0]) <= metrics.min(0)).all()


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_domain_left_out_has_a_finite_loss(law: ParametricRegression) -> None:
    """As published a power of 0 is infinite."""
    weights = swarm(8, 40, 4)
    weights[:10, 0] = 0
    weights /= weights.sum(1, keepdims=True)
    fitted = law.fit(weights, bimix(weights))
    corners = np.eye(4)
    assert np.isfinite(fitted.predict(corners)[0]).all()
    assert np.isfinite(fitted.gradient(corners)).all()


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_neither_domains_nor_tasks_have_an_order(law: ParametricRegression) -> None:
    weights = swarm(4, 60, 4)
    metrics = bimix(weights) + 0.01 * np.random.default_rng(5).standard_normal((60, 2))
    assert_domains_have_no_order(law, weights, metrics, 5e-3)
    assert_tasks_are_fitted_alone(law, weights, metrics, 1e-6)


@pytest.mark.parametrize("law", LAWS, ids=str)
@given(seed=st.integers(0, 10**6))
@hypothesis_settings(max_examples=4, deadline=None)
def test_the_law_is_convex_whatever_it_was_fitted_to(law: ParametricRegression, seed: int) -> None:
    weights = swarm(seed, 20, 4)
    metrics = np.random.default_rng(seed).uniform(1, 2, (20, 2))
    assert_convex_along_chords(law.fit(weights, metrics), 4, seed)


def test_the_published_swarm_of_autoscale_is_enough() -> None:
    """2m + 1 runs: a base, each domain's tokens tripled, each a third."""
    base = np.full(4, 0.25)
    runs = [base] + [base * np.where(np.arange(4) == j, factor, 1) for j in range(4) for factor in (3, 1 / 3)]
    weights = np.array([run / run.sum() for run in runs])
    fresh = swarm(2, 100, 4, concentration=5.0)
    predicted = AutoScaleLaw().fit(weights, autoscale(weights)).predict(fresh)[0]
    for task in range(2):
        assert np.corrcoef(predicted[:, task], autoscale(fresh)[:, task])[0, 1] > 0.98


def test_what_cannot_be_fitted_is_refused() -> None:
    weights = swarm(5, 5, 4)
    for law in LAWS:
        with pytest.raises(TooFewRuns):
            law.fit(weights, bimix(weights))
    spoiled = bimix(swarm(5, 9, 4))
    spoiled[2, 1] = np.nan
    with pytest.raises(InvalidMetrics, match="run 2, task 1"):
        BiMixLaw().fit(swarm(5, 9, 4), spoiled)
    with pytest.raises(InvalidSetting, match="eps"):
        BiMixLaw(eps=-1.0)
    with pytest.raises(InvalidSetting, match="budget"):
        AutoScaleLaw(budget=1.0)
