"""Levenberg-Marquardt for many small log-linear laws at once, on stacked arrays.

Every task, start and resample is one of N independent problems over the same K mixtures, so one iteration
is a few matrix products over N x K and one stacked (m+1) x (m+1) solve. Nothing is looped over tasks.
"""

from dataclasses import dataclass

import numpy as np

_LOWEST_LOG_CONSTANT = -14.0  # relative to a metric of about 1: exp(c) is then nothing
_LARGEST_STEP = 3.0  # in the exponent; more would let one step overshoot by e^3
_MEMORY = 4_000_000  # numbers in the largest stacked array: 32 MB


@dataclass(frozen=True)
class LawProblems:
    """N fits of f(p) = exp(c) + exp(a . p) over the same mixtures.

    Attributes:
        weights: (K, m) mixtures.
        metrics: (N, K) what was measured.
        importance: (N, K) weight of each run, 0 to leave it out.
        delta: (N,) where the Huber loss turns from quadratic to linear, in units of the metrics.
        ridge: pull of a towards its mean over the domains.
    """

    weights: np.ndarray
    metrics: np.ndarray
    importance: np.ndarray
    delta: np.ndarray
    ridge: float

    def part(self, chosen: np.ndarray | slice) -> "LawProblems":
        """The problems at these positions."""
        return LawProblems(
            self.weights, self.metrics[chosen], self.importance[chosen], self.delta[chosen], self.ridge
        )

    def evaluate(
        self, coefficients: np.ndarray, constants: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) loss, (N, K) exponential part and (N, K) residuals.

        The loss is sum_i w_i H_delta(r_i) / delta + ridge / 2 |a - mean(a)|^2, H the Huber function.
        """
        exponential = np.exp(np.clip(coefficients @ self.weights.T, -50, 50))
        residuals = np.exp(constants)[:, None] + exponential - self.metrics
        size = np.abs(residuals)
        inner = np.minimum(size, self.delta[:, None])
        loss = (self.importance * inner * (size - 0.5 * inner)).sum(1) / self.delta
        spread = coefficients - coefficients.mean(1, keepdims=True)
        return loss + 0.5 * self.ridge * (spread**2).sum(1), exponential, residuals


def descend(
    problems: LawProblems,
    coefficients: np.ndarray,
    constants: np.ndarray,
    iterations: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From (N, m) coefficients and (N,) constants down to a local minimum: both again, and the (N,) loss.

    A problem stops when a step improves its loss by less than `tolerance` relatively, or when no step
    along a steepest descent improves it at all.
    """
    count, width = coefficients.shape
    chunk = max(1, _MEMORY // max((width + 1) ** 2, problems.weights.shape[0]))
    parts = [slice(first, first + chunk) for first in range(0, count, chunk)]
    results = [
        _descend(
            problems.part(part), coefficients[part].copy(), constants[part].copy(), iterations, tolerance
        )
        for part in parts
    ]
    found = [np.concatenate(pieces) for pieces in zip(*results, strict=True)]
    return found[0], found[1], found[2]


def _descend(
    problems: LawProblems,
    coefficients: np.ndarray,
    constants: np.ndarray,
    iterations: int,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    products = _pairwise_products(problems.weights)
    damping = np.full(len(constants), 1e-2)
    loss, exponential, residuals = problems.evaluate(coefficients, constants)
    final = loss.copy()
    live = np.arange(len(constants))
    for _ in range(iterations):
        current = problems.part(live)
        matrix, gradient = _normal_equations(
            current, products, coefficients[live], constants[live], exponential, residuals
        )
        step = _damped_step(matrix, gradient, damping[live])
        next_coefficients = coefficients[live] + step[:, :-1]
        next_constants = np.maximum(constants[live] + step[:, -1], _LOWEST_LOG_CONSTANT)
        next_loss, next_exponential, next_residuals = current.evaluate(next_coefficients, next_constants)
        better = next_loss <= loss
        coefficients[live[better]] = next_coefficients[better]
        constants[live[better]] = next_constants[better]
        stopped = (better & (loss - next_loss <= tolerance * loss)) | (damping[live] > 1e7)
        damping[live] = np.clip(np.where(better, damping[live] / 5, damping[live] * 4), 1e-9, 1e8)
        loss = np.where(better, next_loss, loss)
        exponential = np.where(better[:, None], next_exponential, exponential)
        residuals = np.where(better[:, None], next_residuals, residuals)
        final[live] = loss
        live, loss = live[~stopped], loss[~stopped]
        exponential, residuals = exponential[~stopped], residuals[~stopped]
        if not len(live):
            break
    return coefficients, constants, final


def _pairwise_products(weights: np.ndarray) -> np.ndarray:
    """(K, m m): row k holds p_k p_k^T, so that a weighted sum of them is one matrix product."""
    runs, width = weights.shape
    return (weights[:, :, None] * weights[:, None, :]).reshape(runs, width * width)


def _normal_equations(
    problems: LawProblems,
    products: np.ndarray,
    coefficients: np.ndarray,
    constants: np.ndarray,
    exponential: np.ndarray,
    residuals: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(N, m+1, m+1) Gauss-Newton matrix and (N, m+1) gradient in (a, c).

    The Huber loss enters by its quadratic majoriser, weight 1 / max(|r|, delta), which bounds it from
    above everywhere; that keeps steps safe where most residuals are beyond delta.
    """
    count, width = coefficients.shape
    majoriser = problems.importance / np.maximum(np.abs(residuals), problems.delta[:, None])
    scaled = majoriser * exponential
    constant = np.exp(constants)
    spread = coefficients - coefficients.mean(1, keepdims=True)
    gradient = np.empty((count, width + 1))
    gradient[:, :width] = (scaled * residuals) @ problems.weights + problems.ridge * spread
    gradient[:, width] = constant * (majoriser * residuals).sum(1)
    matrix = np.empty((count, width + 1, width + 1))
    matrix[:, :width, :width] = ((scaled * exponential) @ products).reshape(count, width, width)
    matrix[:, :width, :width] += problems.ridge * (np.eye(width) - 1 / width)
    cross = constant[:, None] * (scaled @ problems.weights)
    matrix[:, :width, width] = matrix[:, width, :width] = cross
    matrix[:, width, width] = constant**2 * majoriser.sum(1)
    return matrix, gradient


def _damped_step(matrix: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    diagonal = np.arange(matrix.shape[1])
    scale = matrix[:, diagonal, diagonal]
    floor = 1e-10 * scale.max(1, keepdims=True) + 1e-12
    matrix[:, diagonal, diagonal] += damping[:, None] * scale + floor
    step = np.linalg.solve(matrix, -gradient[:, :, None])[:, :, 0]
    largest = np.abs(step).max(1, keepdims=True)
    return step * np.minimum(1, _LARGEST_STEP / np.maximum(largest, 1e-300))
