"""Newton's method for many small log-linear laws at once, on stacked arrays.

Every task, start and resample is one of N independent problems over the same K mixtures, so one iteration
is a few matrix products over N x K and one stacked (m+1) x (m+1) solve. Nothing is looped over tasks.

The Huber loss is nearly an absolute value where delta is small beside the residuals: its curvature sits in
the few residuals within delta, and Newton's steps would cross those of most other runs. So curvature is
averaged over as far as residuals moved in the last step: a wide average far from a minimum, and the loss's
own second derivatives once the steps are short. Only the matrix of a step is formed in single precision:
it decides the way to a minimum, never where the minimum is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

_LOWEST_LOG_CONSTANT = -14.0  # relative to a metric of about 1: exp(c) is then nothing
_LARGEST_RISE = 3.0  # of the exponent in one step
_LARGEST_EXPONENT = 50.0
_LEAST_CURVATURE = 1e-2  # share of a residual within delta, given to every run so that no step is unbounded
_NEAR = 0.03  # relative gain of a step below which the exponential's own curvature is trusted
_HOPELESS = 1e7  # damping at which not even a short step downhill improves
_MEMORY = 1_000_000  # numbers in the largest stacked array: 8 MB, so that most of a step stays in cache


@dataclass(frozen=True)
class Runs:
    """The (K, m) mixtures of the runs, and p_k p_k^T of each, so that a weighted sum is one matrix product."""

    weights: np.ndarray

    @cached_property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        """(K, m(m+1)/2) upper triangles, and where in them each of the m x m entries is."""
        width = self.weights.shape[1]
        rows, columns = np.triu_indices(width)
        upper = (self.weights[:, rows] * self.weights[:, columns]).astype(np.float32)
        place = np.empty((width, width), dtype=np.intp)
        place[rows, columns] = place[columns, rows] = np.arange(len(rows))
        return upper, place.ravel()

    def weighted_products(self, share: np.ndarray) -> np.ndarray:
        """(N, m, m) sum_k share_nk p_k p_k^T in single precision."""
        upper, place = self._products
        width = self.weights.shape[1]
        return (share.astype(np.float32) @ upper)[:, place].reshape(-1, width, width)


@dataclass(frozen=True)
class LawProblems:
    """N fits of f(p) = exp(c) + exp(a . p) over the same mixtures.

    Attributes:
        runs: the mixtures.
        metrics: (N, K) what was measured.
        importance: (N, K) weight of each run, 0 to leave it out.
        delta: (N,) where the Huber loss turns from quadratic to linear, in units of the metrics.
        ridge: pull of a towards its mean over the domains.
    """

    runs: Runs
    metrics: np.ndarray
    importance: np.ndarray
    delta: np.ndarray
    ridge: float

    def part(self, chosen: np.ndarray | slice) -> "LawProblems":
        """The problems at these positions."""
        return replace(
            self, metrics=self.metrics[chosen], importance=self.importance[chosen], delta=self.delta[chosen]
        )

    def evaluate(
        self, coefficients: np.ndarray, constants: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N,) loss, (N, K) exponential part and (N, K) residuals.

        The loss is sum_i w_i H_delta(r_i) / delta + ridge / 2 |a - mean(a)|^2, H the Huber function.
        """
        exponential = coefficients @ self.runs.weights.T
        np.exp(np.clip(exponential, -_LARGEST_EXPONENT, _LARGEST_EXPONENT, out=exponential), out=exponential)
        residuals = exponential - self.metrics
        residuals += np.exp(constants)[:, None]
        size = np.abs(residuals)
        inner = np.minimum(size, self.delta[:, None])
        size -= 0.5 * inner
        size *= inner
        loss = np.einsum("nk,nk->n", self.importance, size) / self.delta
        spread = coefficients - coefficients.mean(1, keepdims=True)
        return loss + 0.5 * self.ridge * (spread**2).sum(1), exponential, residuals


@dataclass
class _State:
    """Where each of the problems still being solved stands, one row a problem."""

    position: np.ndarray
    coefficients: np.ndarray
    constants: np.ndarray
    loss: np.ndarray
    exponential: np.ndarray
    residuals: np.ndarray
    reach: np.ndarray
    damping: np.ndarray
    near: np.ndarray

    def part(self, chosen: np.ndarray) -> "_State":
        return _State(*(getattr(self, field.name)[chosen] for field in fields(self)))


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
    chunk = max(1, _MEMORY // max((width + 1) ** 2, problems.metrics.shape[1]))
    results = [
        _descend(problems.part(part), coefficients[part], constants[part], iterations, tolerance)
        for part in (slice(first, first + chunk) for first in range(0, count, chunk))
    ]
    stacked = [np.concatenate(pieces) for pieces in zip(*results, strict=True)]
    return stacked[0], stacked[1], stacked[2]


def _descend(
    problems: LawProblems, coefficients: np.ndarray, constants: np.ndarray, iterations: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count = len(constants)
    found = coefficients.copy(), constants.copy(), np.empty(count)
    loss, exponential, residuals = problems.evaluate(coefficients, constants)
    state = _State(
        np.arange(count),
        *(coefficients.copy(), constants.copy(), loss, exponential, residuals),
        reach=np.sqrt(np.square(residuals).mean(1)),
        damping=np.full(count, 1e-2),
        near=np.zeros(count, dtype=bool),
    )
    for iteration in range(iterations):
        stopped = _advance(problems, state, tolerance) | (iteration == iterations - 1)
        if stopped.any():
            done = state.part(stopped)
            for kept, reached in zip(found, (done.coefficients, done.constants, done.loss), strict=True):
                kept[done.position] = reached
            state, problems = state.part(~stopped), problems.part(~stopped)
        if not len(state.position):
            break
    return found


def _advance(problems: LawProblems, state: _State, tolerance: float) -> np.ndarray:
    """Take a step of every problem where it improves, in place; (N,) whether the problem is finished."""
    matrix, gradient = _quadratic_model(problems, state)
    step = _damped_step(matrix, gradient, state.damping)
    step *= _allowed(step, problems.runs.weights)[:, None]
    coefficients = state.coefficients + step[:, :-1]
    constants = np.maximum(state.constants + step[:, -1], _LOWEST_LOG_CONSTANT)
    loss, exponential, residuals = problems.evaluate(coefficients, constants)
    better = loss <= state.loss
    gain = np.where(better, state.loss - loss, 0)
    relative = gain / np.maximum(state.loss, 1e-300)
    stopped = (better & (relative <= tolerance)) | (state.damping > _HOPELESS)
    # How much of what the step promised it kept decides how boldly to go on (Nielsen's rule).
    promised = -0.5 * np.einsum("ni,ni->n", step, gradient)
    kept = np.clip(gain / np.maximum(promised, 1e-300), 0, 1.5)
    bolder = np.clip(1 - (2 * kept - 1) ** 3, 0.2, 2)
    state.damping = np.clip(state.damping * np.where(better, bolder, 4), 1e-9, 10 * _HOPELESS)
    moved = np.sqrt(np.square(residuals - state.residuals).mean(1))
    state.reach = 2 * np.where(better, moved, state.reach)
    state.near = better & (relative < _NEAR)
    for current, proposed in (
        (state.coefficients, coefficients),
        (state.constants, constants),
        (state.loss, loss),
        (state.exponential, exponential),
        (state.residuals, residuals),
    ):
        current[better] = proposed[better]
    return stopped


def _quadratic_model(problems: LawProblems, state: _State) -> tuple[np.ndarray, np.ndarray]:
    """(N, m+1, m+1) matrix and (N, m+1) gradient in (a, c).

    The loss curves by 1 / delta within delta and not at all beyond; here that is averaged over residuals
    within `reach` of each. Near a minimum the loss's slope times the curvature of the exponential joins it.
    """
    weights, delta = problems.runs.weights, problems.delta[:, None]
    count, width = state.coefficients.shape
    size = np.abs(state.residuals)
    slope = problems.importance / np.maximum(size, delta) * state.residuals
    reach = np.maximum(state.reach[:, None], 1e-3 * delta)
    within = np.minimum(size + reach, delta) - np.maximum(size - reach, -delta)
    curvature = problems.importance * np.maximum(within, _LEAST_CURVATURE * reach) / (2 * reach * delta)
    crossed = curvature * state.exponential
    steep = crossed * state.exponential
    steep[state.near] += slope[state.near] * state.exponential[state.near]
    constant = np.exp(state.constants)
    spread = state.coefficients - state.coefficients.mean(1, keepdims=True)
    gradient = np.empty((count, width + 1))
    gradient[:, :width] = (slope * state.exponential) @ weights + problems.ridge * spread
    total = slope.sum(1)
    gradient[:, width] = constant * total
    matrix = np.empty((count, width + 1, width + 1))
    towards_mean = problems.ridge * (np.eye(width) - 1 / width)
    np.add(problems.runs.weighted_products(steep), towards_mean, out=matrix[:, :width, :width])
    matrix[:, :width, width] = matrix[:, width, :width] = constant[:, None] * (crossed @ weights)
    matrix[:, width, width] = constant**2 * curvature.sum(1) + state.near * constant * total
    return matrix, gradient


def _damped_step(matrix: np.ndarray, gradient: np.ndarray, damping: np.ndarray) -> np.ndarray:
    diagonal = np.arange(matrix.shape[1])
    scale = np.abs(matrix[:, diagonal, diagonal])
    floor = 1e-10 * scale.max(1, keepdims=True) + 1e-12
    matrix[:, diagonal, diagonal] += damping[:, None] * scale + floor
    return np.linalg.solve(matrix, -gradient[:, :, None])[:, :, 0]


def _allowed(step: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) how much of each step to take, so that no run's exponential rises by more than a factor.

    A fall needs no such bound: a coefficient on its way to -300 may take long steps, since what falls
    is soon nothing.
    """
    rise = np.maximum((step[:, :-1] @ weights.T).max(1), np.abs(step[:, -1]))
    return np.minimum(1, _LARGEST_RISE / np.maximum(rise, 1e-300))


# Where descents begin: a constant below or within the metrics, above which an exponential is a linear fit.


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
