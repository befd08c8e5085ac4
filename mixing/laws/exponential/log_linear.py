"""The log-linear mixing law, f_t(p) = exp(c_t) + exp(a_t . p), for all tasks at once.

The law of Data Mixing Laws (arXiv 2403.16952) as Olmix (arXiv 2602.12237) uses it: convex in p, with
m + 1 parameters per task. Fitted by the Huber loss with delta = 0.02 in the metric's own unit (BPB, as
published), so a run off by more than 0.02 pulls linearly and no more. By its name, `log-linear`, delta counts in what
the metric varies by over the runs instead: it is 0.02 where that is `USUAL_SPREAD`, as for BPB.

The Huber objective has several minima, and exp(c) tells them apart: those below the lowest metric lead to
one minimum, others lie above it. So each task starts from several quantiles of its metric as exp(c), at each of
which log(y - exp(c)) is linear in p, and the lowest minimum is kept. A weak ridge of 1e-6 on the deviation of a
from its mean (in units where the metric's standard deviation is 1; the sum over runs is not averaged)
decides only what the runs leave open: a domain that never varies gets the mean effect.

With K runs the law has m + 1 parameters: below m + 2 it is refused, from 3(m + 1) it can be trusted.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.inverses import floored_inverse
from mixing.laws.exponential.huber_descent import LawProblems, Runs, descend, exponents_above, quantiles
from mixing.laws.regression import Expansion, Fitted, Regression, importance
from mixing.objective import USUAL_SPREAD
from mixing.runs.table import RunTable

_SCREENING = 16
"""Iterations after which the starts of a task are compared."""
_CLOSE = 1.3
"""A start is given up when its loss is then above the best one's times this."""


@dataclass(frozen=True)
class FittedLogLinear(Fitted):
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

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Sum of the tasks to second order at one (m,) mixture; its Hessian is sum_t w_t exp(a_t . p) a_t a_t^T."""
        exponential = np.exp(np.clip(self.coefficients @ weights, -50, 50))
        pull = task_weights * exponential
        return Expansion(
            value=float(task_weights @ (self.constants + exponential)),
            gradient=pull @ self.coefficients,
            diagonal=np.zeros(len(weights)),
            factors=np.sqrt(pull)[:, None] * self.coefficients,
        )


@dataclass(frozen=True)
class LogLinearLaw(Regression):
    """The regression and its settings; see the module for what they mean.

    Attributes:
        delta: Huber threshold, in the metric's unit.
        per_spread: whether it is rather per `USUAL_SPREAD` of the metric's standard deviation.
        ridge: pull towards equal effects.
        starts: quantiles of the metric at which exp(c) begins.
        iterations: most Levenberg-Marquardt iterations.
        tolerance: relative improvement at which a fit is finished.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = LogLinearLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.001)
    True
    """

    title = "log-linear law"
    needs_positive = True

    delta: float = 0.02
    per_spread: bool = False
    ridge: float = 1e-6
    starts: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.55)
    iterations: int = 300
    tolerance: float = 1e-9

    @classmethod
    def for_runs(cls, runs: RunTable) -> Self:
        """For metrics of any unit."""
        return cls(per_spread=True)

    def thresholds(self, metrics: np.ndarray) -> np.ndarray:
        """(T,) delta of each of (K, T) metrics."""
        spread = metrics.std(axis=0)
        return self.delta / USUAL_SPREAD * spread if self.per_spread else np.full(len(spread), self.delta)

    def runs_to_fit(self, domains: int) -> int:
        """One run more than a task has parameters."""
        return domains + 2

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
        self.check(weights, metrics)
        every = np.ones((1, len(weights)), bool)
        return self.refits(weights, metrics, every, noise)[0]

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> list[FittedLogLinear]:
        """(B,) fits in one batch, each to the runs that its row of the (B, K) booleans `kept` keeps.

        A subset smaller than `runs_to_fit` is fitted all the same: the ridge decides what it leaves open.
        """
        trust = importance(metrics, noise, self.thresholds(metrics)) * kept[:, :, None]
        laws = zip(trust, *self._solve(weights, metrics, trust), strict=True)
        return [_with_uncertainty(weights, metrics, *law, self) for law in laws]

    def _solve(
        self, weights: np.ndarray, metrics: np.ndarray, trust: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, T, m) coefficients and (B, T) exp(c) of B fits at once, of (B, K, T) `trust`, 0 to leave a run out."""
        count, runs, tasks = trust.shape
        scale = metrics.std(axis=0) + 1e-300
        targets = np.tile((metrics / scale).T, (count, 1))
        trusted = trust.transpose(0, 2, 1).reshape(-1, runs)
        delta = np.tile(self.thresholds(metrics) / scale, count)
        problems = LawProblems(Runs(weights), targets, trusted, delta, self.ridge)
        best = _lowest(problems, self._starts(problems), self)
        # Dividing a metric by s turns a . p into a . p - log s, and log s is log s times the sum of p.
        coefficients = best[0].reshape(count, tasks, -1) + np.log(scale)[:, None]
        return coefficients, np.exp(best[1]).reshape(count, tasks) * scale

    def _starts(self, problems: LawProblems) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each start exp(c), the least-squares a of log(y - exp(c)), weighted back to the scale of y."""
        return [
            (
                exponents_above(problems.runs, problems.metrics, problems.importance, constant),
                np.log(constant),
            )
            for constant in quantiles(problems.metrics, problems.importance, self.starts)
        ]


def _lowest(
    problems: LawProblems, starts: list[tuple[np.ndarray, np.ndarray]], law: LogLinearLaw
) -> tuple[np.ndarray, np.ndarray]:
    """Descend from every start at once and keep, per problem, the lowest minimum."""
    count = len(problems.metrics)
    owner = np.tile(np.arange(count), len(starts))
    coefficients = np.concatenate([start[0] for start in starts])
    constants = np.concatenate([start[1] for start in starts])
    if len(starts) > 1:
        coefficients, constants, loss = descend(
            problems.part(owner), coefficients, constants, _SCREENING, law.tolerance
        )
        rivals = _rivals(loss.reshape(len(starts), count)).ravel()
        coefficients, constants, owner = coefficients[rivals], constants[rivals], owner[rivals]
    coefficients, constants, loss = descend(
        problems.part(owner), coefficients, constants, law.iterations, law.tolerance
    )
    order = np.lexsort((loss, owner))
    best = order[np.searchsorted(owner[order], np.arange(count))]
    return coefficients[best], constants[best]


def _rivals(loss: np.ndarray) -> np.ndarray:
    """Which of (starts, N) descents are worth finishing: close to their problem's lowest, and not the same."""
    order = loss.argsort(0)
    ranked = np.take_along_axis(loss, order, 0)
    worth = ranked <= _CLOSE * ranked[:1]
    worth[1:] &= ranked[1:] > (1 + 1e-6) * ranked[:-1]
    rivals = np.empty_like(worth)
    np.put_along_axis(rivals, order, worth, 0)
    return rivals


def believable(predicted: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(..., T) predictions of refits, no further outside the (2, T) lowest and highest measured than these are apart.

    Refitted without the one run in which a domain mattered, exp(a . p) may be off by any power of ten there. Such a
    prediction is wrong, and it should count as wrong; it should not decide a mean over all runs by its size.
    """
    low, high = ends
    return np.clip(predicted, low - (high - low), high + (high - low))


def _jacobian(weights: np.ndarray, exponential: np.ndarray) -> np.ndarray:
    """(T, n, m+1): d f / d (a, exp c) at (n, m) mixtures with (n, T) exponential parts."""
    tasks = exponential.shape[1]
    slopes = exponential.T[:, :, None] * weights[None]
    return np.concatenate([slopes, np.ones((tasks, len(weights), 1))], axis=2)


def _with_uncertainty(
    weights: np.ndarray,
    metrics: np.ndarray,
    importance: np.ndarray,
    coefficients: np.ndarray,
    constants: np.ndarray,
    law: LogLinearLaw,
) -> FittedLogLinear:
    exponential = np.exp(np.clip(weights @ coefficients.T, -50, 50))
    residuals = constants + exponential - metrics
    jacobian = _jacobian(weights, exponential)
    trust = importance.T
    information = np.einsum("tk,tki,tkj->tij", trust, jacobian, jacobian, optimize=True)
    width = weights.shape[1]
    # The fit divides its loss by delta and its metrics by their deviation; here it is in the metric's unit.
    pull = (law.ridge * law.thresholds(metrics) * metrics.std(0))[:, None, None]
    information[:, :width, :width] += pull * (np.eye(width) - 1 / width)
    inverse = floored_inverse(information, 1e-10)
    leverage = importance * np.einsum("tki,tij,tkj->kt", jacobian, inverse, jacobian, optimize=True)
    leverage = np.clip(leverage, 0, 0.99)
    freedom = np.maximum(len(weights) - leverage.sum(0), 1)
    residual_std = np.sqrt((residuals**2).sum(0) / freedom)
    return FittedLogLinear(
        coefficients, constants, residual_std, inverse * residual_std[:, None, None] ** 2, leverage
    )
