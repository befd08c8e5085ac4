"""What every regression is: a family of laws with its settings, and the law it becomes when it is fitted to runs.

K runs over m domains and T tasks. `fit` takes the mixtures as rows on the simplex and the metrics as they were
measured, in the metric's unit (BPB where nothing else is said), lower or higher better alike: a regression only
predicts. All tasks are fitted in one call. As scikit-learn's estimators do, a regression keeps its settings as given
and learns nothing before `fit`; unlike theirs, `fit` leaves it as it is and returns the law.

A regression of one's own is two classes, of which only `fit` and `predict` must be written:

    @dataclass(frozen=True)
    class FittedMean(Fitted):
        means: np.ndarray

        def predict(self, weights):
            mean = np.tile(self.means, (len(weights), 1))
            return mean, np.zeros_like(mean)

    class Mean(Regression):
        def fit(self, weights, metrics, noise=None):
            return FittedMean(metrics.mean(0))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mixing.errors import InvalidMetrics, InvalidSetting, TooFewRuns
from mixing.runs.table import RunTable

_STEP = 1e-4
"""Of a weight, to either side, for differences of a gradient."""


@dataclass(frozen=True)
class Expansion:
    """A weighted sum of tasks to second order at one mixture.

    The Hessian is diag(`diagonal`) + `factors`^T `factors`, which a solver can invert at the cost of its rank.

    Attributes:
        value: sum_t w_t f_t(p).
        gradient: (m,).
        diagonal: (m,) non-negative.
        factors: (r, m), r at most the number of tasks.
    """

    value: float
    gradient: np.ndarray
    diagonal: np.ndarray
    factors: np.ndarray

    def plus(
        self, value: float = 0.0, gradient: np.ndarray | float = 0.0, diagonal: np.ndarray | float = 0.0
    ) -> "Expansion":
        """With a sum of functions of one weight each added, of this value and these derivatives."""
        return Expansion(self.value + value, self.gradient + gradient, self.diagonal + diagonal, self.factors)

    def through(self, matrix: np.ndarray) -> "Expansion":
        """As one of (n,) q, where this is one of (m,) p = M q, of the (m, n) matrix M."""
        # A row of M that reads one q keeps its part of the Hessian on the diagonal; any other is a factor.
        alone = (matrix != 0).sum(axis=1) <= 1
        shared = ~alone & (self.diagonal > 0)
        spread = np.sqrt(self.diagonal[shared])[:, None] * matrix[shared]
        return Expansion(
            self.value,
            self.gradient @ matrix,
            self.diagonal[alone] @ matrix[alone] ** 2,
            np.concatenate([self.factors @ matrix, spread]),
        )


class Fitted:
    """A law: a regression after its fit.

    `predict` is all that is needed. With `gradient` searches follow the slope; with `expand` the law is taken to be
    convex in the mixture for every task, and is minimised exactly.
    """

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the prediction, both (n, T), at (n, m) mixtures.

        The deviation is that of the predicted mean, not of a new measurement.
        """
        raise NotImplementedError

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone, which many laws know at a small part of the cost of `predict`."""
        return self.predict(weights)[0]

    def unfinished(self) -> np.ndarray:
        """(u,) the tasks whose fit ran out of iterations before it reached a minimum."""
        return np.zeros(0, int)

    def parts(self) -> tuple[dict[str, float], ...]:
        """(T,) `{law: its share}` of each task where it is an average of several; empty where it is one law."""
        return ()

    def by_member(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, T) shares and (M, n, T) means of the laws it is an average of; of itself where it is one law."""
        mean = self.mean(weights)
        return np.ones((1, mean.shape[1])), mean[None]

    def notes(self) -> tuple[str, ...]:
        """Sentences on how it was fitted, for whoever reads its answers."""
        return ()

    @property
    def has_gradient(self) -> bool:
        """Whether `gradient` is there."""
        return type(self).gradient is not Fitted.gradient

    @property
    def is_convex(self) -> bool:
        """Whether the law is convex in the mixture for every task, so that `expand` is there."""
        return type(self).expand is not Fitted.expand

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j at (n, m) mixtures, the weights taken as independent.

        Raises:
            InvalidSetting: the law has none.
        """
        raise InvalidSetting(f"{type(self).__name__} has no gradient", field="regression")

    def local(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion | None:
        """`expand`, or where the law is not convex the same of its curvature upwards alone; None without a gradient.

        The second derivatives are then differences of the gradient, and what bends down counts as straight.
        """
        if self.is_convex:
            return self.expand(weights, task_weights)
        if not self.has_gradient:
            return None
        steps = _STEP * np.concatenate([np.eye(len(weights)), -np.eye(len(weights))])
        slopes = np.einsum("ntm,t->nm", self.gradient(np.maximum(weights + steps, 0.0)), task_weights)
        moved = np.maximum(weights + steps, 0.0)
        width = np.diagonal(moved[: len(weights)] - moved[len(weights) :])
        hessian = (slopes[: len(weights)] - slopes[len(weights) :]) / width[:, None]
        values, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
        upwards = values > 0
        return Expansion(
            float(self.mean(weights[None])[0] @ task_weights),
            np.einsum("tm,t->m", self.gradient(weights[None])[0], task_weights),
            np.zeros(len(weights)),
            (vectors[:, upwards] * np.sqrt(values[upwards])).T,
        )

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """To second order at one (m,) mixture, for (T,) non-negative task weights.

        Raises:
            InvalidSetting: the law is not convex.
        """
        raise InvalidSetting(
            f"{type(self).__name__} is not convex, so its optimum cannot be certified; search it instead",
            field="regression",
        )


@dataclass(frozen=True)
class FittedEach(Fitted):
    """One estimator of T tasks each, which say nothing of where they are unsure.

    Attributes:
        estimators: with a `predict` of their own.
        residual_std: (T,) root mean square error on runs they had not seen; it holds the noise of a measurement too.
        scale: (T,) and
        level: (T,) or a number: metric = level + scale * what the estimator says.
    """

    estimators: tuple[Any, ...]
    residual_std: np.ndarray
    scale: np.ndarray
    level: np.ndarray | float = 0.0

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, both (n, T), of (n, m) mixtures; the deviation is the same at each."""
        values = np.column_stack([np.ravel(estimator.predict(weights)) for estimator in self.estimators])
        return self.level + self.scale * values, np.tile(self.residual_std, (len(weights), 1))


class Regression:
    """A family of laws with its settings. `fit` is all that is needed; the rest has defaults that call it.

    Attributes:
        title: how messages call it.
        needs_positive: whether it works with metrics above 0 alone.
    """

    title: ClassVar[str] = "law"
    needs_positive: ClassVar[bool] = False

    @classmethod
    def for_runs(cls, runs: RunTable) -> Self:
        """With its default settings, told what it needs to know of the runs besides weights and metrics."""
        return cls()

    def runs_to_fit(self, domains: int) -> int:
        """Fewest runs `fit` takes over so many domains; a method asks for more where folds are to be left out."""
        return 2

    def work(self, runs: int, domains: int, tasks: int) -> float:
        """What a proposal computes with it; a million are some 7 CPU seconds, and 0 is little at any size."""
        return 0.0

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> Fitted:
        """Fit every task.

        Args:
            weights: (K, m) rows on the simplex.
            metrics: (K, T).
            noise: (K, T) standard deviation of each measurement, 0 where unknown.

        Raises:
            TooFewRuns: K < `runs_to_fit(m)`.
            InvalidMetrics: a metric the family cannot work with.
        """
        raise NotImplementedError

    def check(self, weights: np.ndarray, metrics: np.ndarray) -> None:
        """Refuse (K, m) mixtures and (K, T) metrics that nothing can be learned from; `fit` begins with it.

        Raises:
            TooFewRuns: K < `runs_to_fit(m)`.
            InvalidMetrics: one that is not finite, not positive where that is needed, or the same in every run.
        """
        runs, domains = weights.shape
        if runs < (needed := self.runs_to_fit(domains)):
            raise TooFewRuns(
                f"{runs} runs are too few for the {self.title} over {domains} domains; it needs {needed}",
                needed=needed,
                given=runs,
            )
        usable = np.isfinite(metrics) & ((metrics > 0) | (not self.needs_positive))
        if not usable.all():
            run, task = np.argwhere(~usable)[0]
            kind = "positive" if self.needs_positive else "finite"
            raise InvalidMetrics(
                f"the metric of run {run}, task {task} is {metrics[run, task]}; the law needs {kind} numbers",
                field="metrics",
            )
        if (constant := np.flatnonzero(np.ptp(metrics, axis=0) == 0)).size:
            raise InvalidMetrics(f"task {constant[0]} has the same metric in every run", field="metrics")

    @property
    def fits_subsets_at_once(self) -> bool:
        """Whether `refits` is faster than one fit after the other.

        It then takes subsets below `runs_to_fit` too, since folds of the smallest swarm are: what the family assumes
        decides what such a subset leaves open.
        """
        return type(self).refits is not Regression.refits

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> Sequence[Fitted]:
        """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps.

        `whole` is this regression's fit to all the runs, where it is at hand: refits may start from it.

        Raises:
            TooFewRuns, InvalidMetrics: as `fit`.
        """
        return [
            self.fit(weights[rows], metrics[rows], None if noise is None else noise[rows]) for rows in kept
        ]

    def held_out(
        self, weights: np.ndarray, metrics: np.ndarray, kept: np.ndarray, noise: np.ndarray | None = None
    ) -> np.ndarray:
        """(B, K, T) predictions at all K runs by B fits, each to the runs its row of the (B, K) booleans keeps."""
        return np.stack([law.mean(weights) for law in self.refits(weights, metrics, kept, noise)])

    def fit_and_refit(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        known: "Sequence[tuple[Regression, Fitted]]" = (),
    ) -> "Refitted":
        """What `fit` and `refits` give, for a family of which the second is a by-product of the first.

        `known` are other regressions' fits to all the runs: one that is a part of this one need not be made again.
        """
        whole = self.fit(weights, metrics, noise)
        parts = tuple(self.refits(weights, metrics, kept, noise, whole)) if len(kept) else ()
        predicted = np.array([law.mean(weights) for law in parts]).reshape(-1, *metrics.shape)
        return Refitted(whole, parts, predicted)


@dataclass(frozen=True)
class Refitted:
    """A law fitted to K runs, and B times to some of them.

    Attributes:
        whole: by all runs.
        parts: (B,) by some.
        predicted: (B, K, T) what these predict of all.
    """

    whole: Fitted
    parts: tuple[Fitted, ...]
    predicted: np.ndarray


# How a regression weighs noisy runs.

_HALF_TRUSTED = 0.05
"""Noise, of a metric's standard deviation over the runs, at which a run counts half."""


def importance(
    metrics: np.ndarray, noise: np.ndarray | None, unit: float | np.ndarray | None = None
) -> np.ndarray:
    """(K, T) weight of each measurement, of mean 1 per task: unit^2 / (unit^2 + noise^2).

    Args:
        metrics: (K, T).
        noise: (K, T) standard deviations, 0 where unknown; None for none.
        unit: (T,) noise at which a run counts half; a twentieth of the task's deviation where nothing is said.
    """
    if noise is None:
        return np.ones_like(metrics)
    usual = np.square(_HALF_TRUSTED * metrics.std(0) if unit is None else unit)
    trust = usual / (usual + np.square(noise))
    return trust / trust.mean(0)
