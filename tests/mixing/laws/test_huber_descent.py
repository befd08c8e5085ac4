import numpy as np
import pytest
from scipy.optimize import minimize

from mixing.laws.exponential.huber_descent import LawProblems, Runs, descend
from mixing.laws.exponential.log_linear import LogLinearLaw
from tests.mixing.laws.law_checks import swarm

DELTA = 0.02


def huber(residuals: np.ndarray) -> np.ndarray:
    size = np.abs(residuals)
    return np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).mean(0)


def lowest_by_random_starts(weights: np.ndarray, metric: np.ndarray, seed: int, starts: int) -> float:
    """A second method: L-BFGS with its own gradient from random starts."""

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        exponential = np.exp(np.clip(weights @ parameters[1:], -50, 50))
        residuals = np.exp(parameters[0]) + exponential - metric
        slope = np.clip(residuals, -DELTA, DELTA) / len(metric)
        gradient = np.append(np.exp(parameters[0]) * slope.sum(), weights.T @ (slope * exponential))
        return float(huber(residuals)), gradient

    generator = np.random.default_rng(seed)
    begin = np.column_stack(
        [np.log(generator.uniform(0.1, 1.2, starts) * metric.min()), generator.normal(0, 1, (starts, 5))]
    )
    options = {"maxiter": 2000, "maxfun": 4000}
    return min(float(minimize(objective, x, jac=True, method="L-BFGS-B", options=options).fun) for x in begin)


@pytest.mark.parametrize("seed", range(3))
def test_a_domain_that_matters_only_in_traces_hides_no_lower_minimum(seed: int) -> None:
    """Losses fall at the first 1% of a domain and noise is far beyond delta: several minima."""
    weights = swarm(seed, 60, 5, concentration=0.4)
    generator = np.random.default_rng(seed)
    slopes = np.array([-60.0, 1.0, 0.5, 0.2, -1.0])
    metric = 3 + np.exp(weights @ slopes) + 0.15 * generator.standard_t(3, 60)
    fitted = LogLinearLaw().fit(weights, metric[:, None])
    ours = huber(fitted.predict(weights)[0][:, 0] - metric)
    assert ours <= lowest_by_random_starts(weights, metric, seed, 60) * (1 + 1e-4)


def test_the_minimum_is_stationary_to_double_precision() -> None:
    """Although the matrix of a step is single: the slope at the answer is nothing beside that at the start."""
    weights = swarm(1, 80, 4)
    generator = np.random.default_rng(2)
    metric = 1 + np.exp(weights @ generator.normal(-0.5, 1, 4)) + 0.01 * generator.standard_normal(80)
    problems = LawProblems(Runs(weights), metric[None], np.ones((1, 80)), np.array([DELTA]), 0.0)

    def slope(parameters: np.ndarray) -> np.ndarray:
        steps = 1e-6 * np.eye(5)
        return np.array(
            [
                problems.evaluate((parameters + s)[None, :4], (parameters + s)[4:])[0][0]
                - problems.evaluate((parameters - s)[None, :4], (parameters - s)[4:])[0][0]
                for s in steps
            ]
        ) / (2e-6)

    start = np.zeros(5)
    coefficients, constants, _ = descend(problems, start[None, :4], start[4:], 200, 1e-14)
    assert np.abs(slope(np.append(coefficients, constants))).max() < 1e-5 * np.abs(slope(start)).max()


def test_runs_left_out_do_not_matter() -> None:
    weights = swarm(3, 50, 4)
    generator = np.random.default_rng(4)
    metric = 1 + np.exp(weights @ generator.normal(0, 1, 4)) + 0.01 * generator.standard_normal(50)
    kept = np.arange(50)[None] < 40
    spoiled = metric.copy()
    spoiled[40:] = 100.0
    law = LogLinearLaw(ridge=0.0)
    honest = law.fit(weights[:40], metric[:40, None]).predict(weights)[0]
    # Scaled by the deviation of all metrics, the left out among them, so not to the last digit.
    (left_out,) = law.refits(weights, spoiled[:, None], kept)
    np.testing.assert_allclose(left_out.predict(weights)[0], honest, atol=1e-3)


def test_a_domain_that_never_varies_gets_the_mean_effect() -> None:
    weights = np.column_stack([swarm(6, 40, 3), np.zeros(40)])
    metric = 1 + np.exp(weights @ np.array([0.5, -0.5, 0.3, 9.0]))
    coefficients = LogLinearLaw().fit(weights, metric[:, None]).coefficients[0]
    assert coefficients[3] == pytest.approx(coefficients[:3].mean(), abs=1e-2)
