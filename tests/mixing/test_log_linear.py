import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.diagnostics import leverage, rank_correlation
from mixing.laws.exponential.log_linear import LogLinearLaw
from tests.mixing.test_diagnostics import cross_validate


def world(seed: int, runs: int, domains: int, tasks: int, noise: float) -> tuple[np.ndarray, ...]:
    """Mixtures, metrics of a known law, and that law's (a, exp c)."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(domains) * 0.7, runs)
    a = generator.normal(-0.5, 0.8, (tasks, domains))
    c = generator.uniform(0.5, 1.5, tasks)
    metrics = c + np.exp(weights @ a.T) + noise * generator.standard_normal((runs, tasks))
    return weights, metrics, a, c


def test_the_law_is_found_again_where_there_is_no_noise() -> None:
    weights, metrics, a, c = world(0, 60, 5, 4, 0.0)
    fitted = LogLinearLaw(ridge=0.0).fit(weights, metrics)
    fresh = np.random.default_rng(9).dirichlet(np.ones(5), 200)
    predicted, _ = fitted.predict(fresh)
    np.testing.assert_allclose(predicted, c + np.exp(fresh @ a.T), atol=1e-4)


def huber(residual: np.ndarray, delta: float) -> float:
    size = np.abs(residual)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


@given(st.integers(0, 10**6))
@hypothesis_settings(max_examples=5)
def test_no_start_of_a_general_optimizer_finds_a_lower_objective(seed: int) -> None:
    """A second method: L-BFGS on the same Huber objective from 30 random starts a task."""
    weights, metrics, _, _ = world(seed, 40, 4, 2, 0.03)
    law = LogLinearLaw(ridge=0.0)
    fitted = law.fit(weights, metrics)
    ours = metrics - fitted.predict(weights)[0]
    generator = np.random.default_rng(seed)
    for task in range(2):

        def objective(parameters: np.ndarray, task: int = task) -> float:
            prediction = np.exp(parameters[0]) + np.exp(np.clip(weights @ parameters[1:], -50, 50))
            return huber(metrics[:, task] - prediction, law.delta)

        starts = generator.normal(0, 1, (30, 5))
        best = min(minimize(objective, start, method="L-BFGS-B").fun for start in starts)
        assert huber(ours[:, task], law.delta) <= best * (1 + 1e-3)


def test_the_gradient_agrees_with_finite_differences() -> None:
    weights, metrics, _, _ = world(1, 40, 4, 3, 0.01)
    fitted = LogLinearLaw().fit(weights, metrics)
    point = np.array([[0.4, 0.3, 0.2, 0.1]])
    gradient = fitted.gradient(point)[0]
    for j in range(4):
        step = np.zeros((1, 4))
        step[0, j] = 1e-6
        difference = (fitted.predict(point + step)[0] - fitted.predict(point - step)[0])[0] / 2e-6
        np.testing.assert_allclose(gradient[:, j], difference, rtol=1e-5, atol=1e-7)


def test_permuting_domains_permutes_the_law() -> None:
    weights, metrics, _, _ = world(2, 30, 5, 3, 0.02)
    order = np.array([3, 0, 4, 1, 2])
    plain, permuted = LogLinearLaw().fit(weights, metrics), LogLinearLaw().fit(weights[:, order], metrics)
    fresh = np.random.default_rng(3).dirichlet(np.ones(5), 50)
    np.testing.assert_allclose(plain.predict(fresh)[0], permuted.predict(fresh[:, order])[0], atol=1e-5)


def test_tasks_do_not_depend_on_their_companions() -> None:
    weights, metrics, _, _ = world(4, 30, 4, 5, 0.02)
    together, alone = LogLinearLaw().fit(weights, metrics), LogLinearLaw().fit(weights, metrics[:, 2:3])
    np.testing.assert_allclose(together.predict(weights)[0][:, 2], alone.predict(weights)[0][:, 0], atol=1e-7)


def test_the_stated_uncertainty_covers_the_truth() -> None:
    """Of 90% intervals over many worlds about 90% hold the truth; 600 of them, so 4 standard errors are 5 points."""
    covered = []
    for seed in range(30):
        weights, metrics, a, c = world(seed, 60, 4, 2, 0.01)
        fitted = LogLinearLaw().fit(weights, metrics)
        fresh = np.random.default_rng(1000 + seed).dirichlet(np.ones(4), 10)
        mean, std = fitted.predict(fresh)
        covered.append(np.abs(mean - (c + np.exp(fresh @ a.T))) <= 1.645 * std)
    assert 0.80 <= np.mean(covered) <= 0.98


def test_too_few_runs_and_bad_metrics_are_refused() -> None:
    weights, metrics, _, _ = world(5, 20, 5, 2, 0.0)
    with pytest.raises(TooFewRuns) as caught:
        LogLinearLaw().fit(weights[:6], metrics[:6])
    assert caught.value.needed == 7
    spoiled = metrics.copy()
    spoiled[3, 1] = np.nan
    with pytest.raises(InvalidMetrics):
        LogLinearLaw().fit(weights, spoiled)


def test_rank_correlation_is_spearman_with_ties() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 5, (2, 30, 4)).astype(float)
    expected = [spearmanr(first[:, t], second[:, t]).statistic for t in range(4)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, atol=1e-12)
    assert rank_correlation(np.ones((5, 1)), second[:5, :1])[0] == 0


def test_cross_validation_sees_pure_noise_for_what_it_is() -> None:
    weights, metrics, _, _ = world(6, 60, 4, 1, 0.002)
    shuffled = np.random.default_rng(0).permutation(metrics)
    law, share = LogLinearLaw(), np.ones(1)
    real = cross_validate(law, weights, metrics, share, np.random.default_rng(1))
    noise = cross_validate(law, weights, shuffled, share, np.random.default_rng(1))
    assert real.rank_correlation[0] > 0.98
    assert abs(noise.rank_correlation[0]) < 0.5


def test_leverage_is_the_diagonal_of_the_hat_matrix() -> None:
    weights, _, _, _ = world(8, 30, 5, 1, 0.0)
    hat = weights @ np.linalg.pinv(weights)
    np.testing.assert_allclose(leverage(weights, weights), np.diag(hat), rtol=1e-6)
    assert leverage(weights, weights).sum() == pytest.approx(5, rel=1e-6)
