"""Where descents begin: a constant below or within the metrics, above which an exponential is a linear fit."""

from collections.abc import Sequence

import numpy as np

from mixing.laws.exponential.huber_descent import Runs


def quantiles(metrics: np.ndarray, importance: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """For each share the (N,) metrics that so much of the (N, K) runs with importance lie below."""
    kept = importance > 0
    ranked = np.sort(np.where(kept, metrics, np.inf), axis=1)
    last = kept.sum(1) - 1
    return [ranked[np.arange(len(ranked)), (share * last).astype(int)] for share in shares]


def exponents_above(
    runs: Runs, metrics: np.ndarray, importance: np.ndarray, constant: np.ndarray
) -> np.ndarray:
    """(N, m) least-squares a of a . p = log(y - constant), weighted back to the scale of y.

    Runs at or below their (N,) constant count next to nothing, domains without runs get the mean effect.
    """
    above = metrics - constant[:, None]
    smallest = 1e-3 * np.maximum(above.max(1), 1e-6 * np.abs(constant) + 1e-12)
    above = np.maximum(above, smallest[:, None])
    trust = importance * above**2
    trust /= trust.sum(1, keepdims=True)
    width = runs.weights.shape[1]
    towards_mean = 1e-3 / width * (np.eye(width) - 1 / width) + 1e-9 * np.eye(width)
    matrix = runs.weighted_products(trust) + towards_mean
    right = (trust * np.log(above)) @ runs.weights
    return np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
