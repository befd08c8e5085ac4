"""What every law of the mixture promises, checked from outside: finite differences, chords, permutations."""

import numpy as np

from mixing.laws.regression import Fitted, Regression


def swarm(seed: int, runs: int, domains: int, concentration: float = 0.7) -> np.ndarray:
    """(runs, domains) mixtures."""
    return np.random.default_rng(seed).dirichlet(np.ones(domains) * concentration, runs)


def assert_gradient_is_the_slope(fitted: Fitted, point: np.ndarray, step: float = 1e-6) -> None:
    """Against central differences in every weight, the others held."""
    gradient = fitted.gradient(point[None])[0]
    for j in range(len(point)):
        move = np.zeros((1, len(point)))
        move[0, j] = step
        slope = (fitted.predict(point + move)[0] - fitted.predict(point - move)[0])[0] / (2 * step)
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-6 * (1 + np.abs(gradient).max()))


def assert_expansion_is_the_second_order(
    law: Fitted, point: np.ndarray, task_weights: np.ndarray, factors_a_task: int = 1
) -> None:
    """Value and gradient against `predict` and `gradient`, the Hessian against differences of the gradient."""
    expansion = law.expand(point, task_weights)
    np.testing.assert_allclose(expansion.value, task_weights @ law.predict(point[None])[0][0], rtol=1e-9)
    np.testing.assert_allclose(expansion.gradient, task_weights @ law.gradient(point[None])[0], rtol=1e-9)
    hessian = np.diag(expansion.diagonal) + expansion.factors.T @ expansion.factors
    step = 1e-6
    for j in range(len(point)):
        move = np.zeros(len(point))
        move[j] = step
        above, below = (task_weights @ law.gradient((point + sign * move)[None])[0] for sign in (1, -1))
        slope = (above - below) / (2 * step)
        np.testing.assert_allclose(hessian[j], slope, rtol=1e-4, atol=1e-6 * (1 + np.abs(hessian).max()))
    assert (expansion.diagonal >= 0).all()
    assert len(expansion.factors) <= factors_a_task * len(task_weights)


def assert_convex_along_chords(fitted: Fitted, domains: int, seed: int) -> None:
    """No value between two mixtures lies above the chord; corners of the simplex included."""
    generator = np.random.default_rng(seed)
    first, second = generator.dirichlet(np.full(domains, 0.3), (2, 60))
    first[:domains] = np.eye(domains)
    share = generator.uniform(0, 1, (60, 1))
    middle = fitted.predict(share * first + (1 - share) * second)[0]
    chord = share * fitted.predict(first)[0] + (1 - share) * fitted.predict(second)[0]
    assert (middle <= chord + 1e-9 * (1 + np.abs(chord))).all()


def assert_domains_have_no_order(
    law: Regression, weights: np.ndarray, metrics: np.ndarray, tolerance: float
) -> None:
    """Permuted domains give the permuted law."""
    order = np.random.default_rng(5).permutation(weights.shape[1])
    fresh = swarm(77, 40, weights.shape[1])
    plain = law.fit(weights, metrics).predict(fresh)[0]
    permuted = law.fit(weights[:, order], metrics).predict(fresh[:, order])[0]
    np.testing.assert_allclose(plain, permuted, atol=tolerance)


def assert_tasks_are_fitted_alone(
    law: Regression, weights: np.ndarray, metrics: np.ndarray, tolerance: float
) -> None:
    """A task's law is the same with and without other tasks beside it."""
    together = law.fit(weights, metrics).predict(weights)[0][:, 1]
    alone = law.fit(weights, metrics[:, 1:2]).predict(weights)[0][:, 0]
    np.testing.assert_allclose(together, alone, atol=tolerance)
