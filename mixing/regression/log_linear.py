"""The log-linear mixing law, f_t(p) = exp(c_t) + exp(a_t . p), for all tasks at once.

The law of Data Mixing Laws (arXiv 2403.16952) as Olmix (arXiv 2602.12237) uses it: convex in p, with
m + 1 parameters per task. Fitted by the Huber loss with delta = 0.02 in the metric's own unit (BPB, as
published), so a run off by more than 0.02 pulls linearly and no more.

The Huber objective has several minima, so each task starts from several values of exp(c), at each of which
log(y - exp(c)) is linear in p, and the lowest minimum is kept. A weak ridge of 1e-4 on the deviation of a
from its mean (in units where the metric's standard deviation is 1; the sum over runs is not averaged)
decides only what the runs leave open: a domain that never varies gets the mean effect.

With K runs the law has m + 1 parameters: below m + 2 it is refused, from 3(m + 1) it can be trusted.
"""

from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.regression.huber_descent import LawProblems, descend


@dataclass(frozen=True)
class LawBatch:
    """Laws of B refits: `coefficients` (B, T, m) and `constants` exp(c) (B, T)."""

    coefficients: np.ndarray
    constants: np.ndarray

    def predict(self, weights: np.ndarray) -> np.ndarray:
        """Predictions for (n, m) mixtures, the same for every refit, or (B, n, m): (B, n, T)."""
        mixtures = weights if weights.ndim == 3 else weights[None]
        exponents = mixtures @ self.coefficients.transpose(0, 2, 1)
        return self.constants[:, None, :] + np.exp(np.clip(exponents, -50, 50))


@dataclass(frozen=True)
class FittedLogLinear:
    """The law of T tasks over m domains.

    Attributes:
        coefficients: (T, m) a_t.
        constants: (T,) exp(c_t), in the metric's unit.
        residual_std: (T,) standard deviation of the residuals, corrected for the parameters fitted.
        covariance: (T, m+1, m+1) Gauss-Newton covariance of (a_t, exp(c_t)).
        leverage: (K, T) in [0, 1): how far each run decides its own prediction.
    """

    coefficients: np.ndarray
    constants: np.ndarray
    residual_std: np.ndarray
    covariance: np.ndarray
    leverage: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the law (not of a new measurement), both (n, T), of (n, m) mixtures."""
        exponential = np.exp(np.clip(weights @ self.coefficients.T, -50, 50))
        jacobian = _jacobian(weights, exponential)
        variance = np.einsum("tni,tij,tnj->nt", jacobian, self.covariance, jacobian)
        return self.constants + exponential, np.sqrt(np.maximum(variance, 0))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j, the weights taken as independent."""
        exponential = np.exp(np.clip(weights @ self.coefficients.T, -50, 50))
        return exponential[:, :, None] * self.coefficients[None]


@dataclass(frozen=True)
class LogLinearLaw:
    """The regression and its settings; see the module for what they mean.

    Attributes:
        delta: Huber threshold, in the metric's unit.
        ridge: pull towards equal effects.
        starts: exp(c) begins at min(y) minus this many times the range of y.
        iterations: most Levenberg-Marquardt iterations.
        tolerance: relative improvement at which a fit is finished.
    """

    delta: float = 0.02
    ridge: float = 1e-4
    starts: tuple[float, ...] = (0.005, 0.02, 0.1, 0.4, 1.0, 4.0)
    iterations: int = 300
    tolerance: float = 1e-9

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedLogLinear:
        """Fit the law of every task to (K, m) mixtures and (K, T) metrics.

        Args:
            weights: rows on the simplex.
            metrics: positive and finite, such as BPB.
            noise: (K, T) standard deviation of each measurement, where known; a run counts
                delta^2 / (delta^2 + noise^2), so runs equally noisy count equally.

        Raises:
            TooFewRuns: K < m + 2.
            InvalidMetrics: a metric that is not positive and finite, or that is constant.
        """
        runs, domains = weights.shape
        if runs < domains + 2:
            raise TooFewRuns(
                f"{runs} runs are too few for the log-linear law over {domains} domains; it needs"
                f" {domains + 2}",
                needed=domains + 2,
                given=runs,
            )
        _check_metrics(metrics)
        importance = self.importance(metrics, noise)
        laws = self.refit(weights, metrics[None], importance[None])
        return _with_uncertainty(weights, metrics, importance, laws, self)

    def importance(self, metrics: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """(K, T) weight of each measurement, of mean 1 per task."""
        if noise is None:
            return np.ones_like(metrics)
        trust = self.delta**2 / (self.delta**2 + np.square(noise))
        return trust / trust.mean(0)

    def refit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        importance: np.ndarray,
        near: FittedLogLinear | None = None,
    ) -> LawBatch:
        """B fits at once, for cross-validation and the bootstrap.

        Args:
            weights: (K, m), shared by all.
            metrics: (B, K, T), or (1, K, T) to share them.
            importance: (B, K, T) weight of each run in each fit, 0 to leave it out.
            near: start from these laws alone instead of from several values of exp(c).
        """
        count = max(len(metrics), len(importance))
        tasks, runs = metrics.shape[2], metrics.shape[1]
        scale = metrics.std(axis=(0, 1)) + 1e-300
        targets = (
            (np.broadcast_to(metrics, (count, runs, tasks)) / scale).transpose(0, 2, 1).reshape(-1, runs)
        )
        trust = np.broadcast_to(importance, (count, runs, tasks)).transpose(0, 2, 1).reshape(-1, runs)
        problems = LawProblems(weights, targets, trust, np.tile(self.delta / scale, count), self.ridge)
        starts = self._near(near, scale, count) if near else self._starts(problems)
        best = _lowest(problems, starts, self)
        # Dividing a metric by s turns a . p into a . p - log s, and log s is log s times the sum of p.
        coefficients = best[0].reshape(count, tasks, -1) + np.log(scale)[:, None]
        return LawBatch(coefficients, np.exp(best[1]).reshape(count, tasks) * scale)

    def _starts(self, problems: LawProblems) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each start exp(c), the least-squares a of log(y - exp(c)), weighted back to the scale of y."""
        kept = problems.importance > 0
        lowest = np.where(kept, problems.metrics, np.inf).min(1)
        spread = np.where(kept, problems.metrics, -np.inf).max(1) - lowest
        spread = np.maximum(spread, 1e-6 * lowest)
        width = problems.weights.shape[1]
        found = []
        for fraction in self.starts:
            constant = np.maximum(lowest - fraction * spread, 1e-3 * lowest)
            above = np.maximum(problems.metrics - constant[:, None], 1e-3 * spread[:, None])
            trust = problems.importance * above**2
            trust /= trust.sum(1, keepdims=True)
            matrix = np.einsum("nk,ki,kj->nij", trust, problems.weights, problems.weights, optimize=True)
            matrix += 1e-3 / width * np.eye(width)
            right = (trust * np.log(above)) @ problems.weights
            found.append((np.linalg.solve(matrix, right[:, :, None])[:, :, 0], np.log(constant)))
        return found

    @staticmethod
    def _near(fitted: FittedLogLinear, scale: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        coefficients = fitted.coefficients - np.log(scale)[:, None]
        constants = np.log(np.maximum(fitted.constants / scale, 1e-6))
        return [(np.tile(coefficients, (count, 1)), np.tile(constants, count))]


def _lowest(
    problems: LawProblems, starts: list[tuple[np.ndarray, np.ndarray]], law: LogLinearLaw
) -> tuple[np.ndarray, np.ndarray]:
    """Descend from every start at once and keep, per problem, the lowest minimum."""
    count = len(problems.metrics)
    repeated = replace(
        problems,
        metrics=np.tile(problems.metrics, (len(starts), 1)),
        importance=np.tile(problems.importance, (len(starts), 1)),
        delta=np.tile(problems.delta, len(starts)),
    )
    coefficients, constants, loss = descend(
        repeated,
        np.concatenate([start[0] for start in starts]),
        np.concatenate([start[1] for start in starts]),
        law.iterations,
        law.tolerance,
    )
    best = loss.reshape(len(starts), count).argmin(0) * count + np.arange(count)
    return coefficients[best], constants[best]


def believable(predicted: np.ndarray, metrics: np.ndarray) -> np.ndarray:
    """(..., T) predictions of refits, no further outside the (K, T) measured range than that range is wide.

    Refitted without the one run in which a domain mattered, exp(a . p) may be off by any power of ten there. Such a
    prediction is wrong, and it should count as wrong; it should not decide a mean over all runs by its size.
    """
    low, high = metrics.min(0), metrics.max(0)
    return np.clip(predicted, low - (high - low), high + (high - low))


def _jacobian(weights: np.ndarray, exponential: np.ndarray) -> np.ndarray:
    """(T, n, m+1): d f / d (a, exp c) at (n, m) mixtures with (n, T) exponential parts."""
    tasks = exponential.shape[1]
    slopes = exponential.T[:, :, None] * weights[None]
    return np.concatenate([slopes, np.ones((tasks, len(weights), 1))], axis=2)


def _with_uncertainty(
    weights: np.ndarray, metrics: np.ndarray, importance: np.ndarray, laws: LawBatch, law: LogLinearLaw
) -> FittedLogLinear:
    coefficients, constants = laws.coefficients[0], laws.constants[0]
    exponential = np.exp(np.clip(weights @ coefficients.T, -50, 50))
    residuals = constants + exponential - metrics
    jacobian = _jacobian(weights, exponential)
    trust = importance.T
    information = np.einsum("tk,tki,tkj->tij", trust, jacobian, jacobian, optimize=True)
    width = weights.shape[1]
    # The fit divides its loss by delta and its metrics by their deviation; here it is in the metric's unit.
    pull = law.ridge * law.delta * metrics.std(0)[:, None, None]
    information[:, :width, :width] += pull * (np.eye(width) - 1 / width)
    size = np.trace(information, axis1=1, axis2=2)[:, None, None]
    inverse = np.linalg.inv(information + 1e-10 * size * np.eye(width + 1))
    leverage = importance * np.einsum("tki,tij,tkj->kt", jacobian, inverse, jacobian, optimize=True)
    leverage = np.clip(leverage, 0, 0.99)
    freedom = np.maximum(len(weights) - leverage.sum(0), 1)
    residual_std = np.sqrt((residuals**2).sum(0) / freedom)
    return FittedLogLinear(
        coefficients, constants, residual_std, inverse * residual_std[:, None, None] ** 2, leverage
    )


def _check_metrics(metrics: np.ndarray) -> None:
    if not np.isfinite(metrics).all() or (metrics <= 0).any():
        run, task = np.argwhere(~(np.isfinite(metrics) & (metrics > 0)))[0]
        raise InvalidMetrics(
            f"the metric of run {run}, task {task} is {metrics[run, task]}; the law needs positive numbers",
            field="metrics",
        )
    if (constant := np.flatnonzero(np.ptp(metrics, axis=0) == 0)).size:
        raise InvalidMetrics(f"task {constant[0]} has the same metric in every run", field="metrics")
