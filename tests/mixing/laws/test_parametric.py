import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from mixing.laws.exponential.exponentials import (
    ExponentialPowerLaw,
    ExponentialsLaw,
    LinearInteractionsLaw,
    LogLinearInteractionsLaw,
)
from mixing.laws.exponential.parametric import FittedLaw, ParametricRegression
from mixing.laws.powers.power_laws import AutoScaleLaw, BiMixLaw
from tests.mixing.laws.law_checks import swarm

LAWS = [
    ExponentialsLaw(2),
    ExponentialPowerLaw(1e-3),
    LinearInteractionsLaw(2),
    LogLinearInteractionsLaw(2),
    BiMixLaw(1e-2),
    AutoScaleLaw(30.0),
]


def losses(weights: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(2)
    slopes = np.array([[-1.5, 0.3, 0.2, -0.4], [0.4, -1.2, 0.1, 0.3]])
    return 1.5 + np.exp(weights @ slopes.T) + 0.02 * generator.standard_t(4, (len(weights), 2))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_jacobian_is_the_slope_in_every_parameter(law: ParametricRegression) -> None:
    weights, formula = swarm(0, 6, 4), law.formula()
    prior = formula.prior(4)
    parameters = prior.mean + 0.3 * np.random.default_rng(1).standard_normal(len(prior.mean))
    jacobian = formula.jacobian(parameters[None], weights)[0]
    for run in range(6):
        slope = approx_fprime(parameters, lambda x, run=run: formula.values(x[None], weights)[0, run], 1e-7)
        np.testing.assert_allclose(jacobian[run], slope, rtol=1e-4, atol=1e-5)


def negative_log_posterior(
    x: np.ndarray, fitted: FittedLaw, weights: np.ndarray, metric: np.ndarray
) -> float:
    """Of Student's t with 4 degrees of freedom, written out anew; the last entry of x is the log of its scale."""
    prior = fitted.formula.prior(4)
    noise = np.exp(x[-1])
    value = x[0] + np.exp(weights @ x[1:-1])
    residual = (value - (metric - fitted.location[0]) / fitted.scale[0]) / noise
    away = x[:-1] - prior.mean
    return float(
        (2.5 * np.log1p(residual**2 / 4)).sum() + len(metric) * x[-1] + 0.5 * away @ prior.precision @ away
    )


def test_no_start_of_a_general_optimizer_finds_a_higher_posterior() -> None:
    weights = swarm(3, 50, 4)
    metrics = losses(weights)[:, :1]
    fitted = ExponentialsLaw(1).fit(weights, metrics)
    ours = np.append(fitted.parameters[0], np.log(fitted.noise[0] / fitted.scale[0]))
    arguments = (fitted, weights, metrics[:, 0])
    generator = np.random.default_rng(4)
    others = [
        minimize(negative_log_posterior, ours + generator.normal(0, 1, 6), args=arguments, method="BFGS").fun
        for _ in range(20)
    ]
    assert negative_log_posterior(ours, *arguments) <= min(others) + 1e-3


def test_a_metric_in_another_unit_is_the_same_law() -> None:
    weights = swarm(5, 40, 4)
    metrics, fresh = losses(weights), swarm(6, 30, 4)
    mean, std = ExponentialsLaw(1).fit(weights, metrics).predict(fresh)
    scaled_mean, scaled_std = ExponentialsLaw(1).fit(weights, 100 * metrics - 7).predict(fresh)
    np.testing.assert_allclose(scaled_mean, 100 * mean - 7, rtol=1e-6)
    np.testing.assert_allclose(scaled_std, 100 * std, rtol=1e-4)


def test_runs_known_to_be_noisy_count_less() -> None:
    weights = swarm(7, 60, 4)
    metrics, noise = losses(weights), np.zeros((60, 2))
    spoiled = metrics + 0.0
    spoiled[:25] += 0.3
    noise[:25] = 1.0
    honest = ExponentialsLaw(1).fit(weights[25:], metrics[25:]).predict(weights)[0]
    told = ExponentialsLaw(1).fit(weights, spoiled, noise).predict(weights)[0]
    untold = ExponentialsLaw(1).fit(weights, spoiled).predict(weights)[0]
    assert np.abs(told - honest).mean() < 0.2 * np.abs(untold - honest).mean()
