"""Intervals for a new run's metric around any regression, by cross-conformal prediction.

Held-out residuals say how far a regression misses runs it has not seen, whatever its own deviation claims. Folds
predict every run without it, and the interval is the prediction plus quantiles of those residuals: as in CV+ (Barber
et al., 2021), with the fit to all runs in the middle instead of the folds' fits. The folds learn from fewer runs, so
their residuals are, if anything, too large.

A loss varies more from run to run the higher it lies above the best reachable one, so residuals are scaled by
f(p) - C, with C half a standard deviation below the lowest metric. Lower and upper quantile are taken apart: a proxy
that is given a trace of a domain which its mixture rounds to 0 is much better than predicted, and none is as much
worse. `python -m benchmarks.regression --intervals` measures what the intervals hold.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.ensemble import fold_masks
from mixing.laws.regression import Fitted, Regression

_BELOW = 0.5
"""Standard deviations of the metrics by which C lies below the lowest of them."""


@dataclass(frozen=True)
class RunIntervals:
    """Where a new run is expected around a prediction, from how far a regression missed the runs it had not seen.

    Attributes:
        constants: (T,) C.
        lowest: (T,) smallest scale, for predictions near C or below it.
        quantiles: (2, T) lower and upper quantile of the scaled residuals.
    """

    constants: np.ndarray
    lowest: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, unseen: np.ndarray, metrics: np.ndarray, confidence: float) -> Self:
        """From (R, K, T) predictions of K runs by fits that did not see them and the (K, T) metrics measured.

        A metric is NaN where a run was not measured; a task that too few runs measured has ends that are NaN.
        """
        usual = np.nanstd(metrics, axis=0)
        constants, lowest = np.nanmin(metrics, axis=0) - _BELOW * usual, 0.5 * _BELOW * usual
        residuals = (metrics - unseen) / np.maximum(unseen - constants, lowest)
        return cls(constants, lowest, _outer_quantiles(residuals, confidence))

    def around(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end, both (n, T), around (n, T) predictions."""
        scale = np.maximum(mean - self.constants, self.lowest)
        return mean + self.quantiles[0] * scale, mean + self.quantiles[1] * scale


def fewest_runs(confidence: float) -> int:
    """How many runs must have been missed before the outermost of them bound an interval of this confidence."""
    tail = (1 - confidence) / 2
    return math.ceil(round(1 / tail - 1, 9))


@dataclass(frozen=True)
class FittedConformal(Fitted):
    """A fit to all runs, and its intervals."""

    fitted: Fitted
    intervals: RunIntervals

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the regression, both (n, T), of (n, m) mixtures."""
        return self.fitted.predict(weights)

    def interval(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end, both (n, T), of where a new run's metric is expected."""
        return self.intervals.around(self.fitted.mean(weights))


@dataclass(frozen=True)
class Conformal(Regression):
    """Intervals around a regression.

    Attributes:
        regression: any.
        confidence: share of new runs an interval should hold.
        folds: of the cross-validation.
        repeats: of it, over different folds.
        seed: of the folds.

    >>> from mixing.laws.exponential.log_linear import LogLinearLaw
    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> low, high = Conformal(LogLinearLaw()).fit(weights, bits).interval(weights)  # both (runs, tasks)
    >>> bool((low <= high).all())
    True
    """

    regression: Regression
    confidence: float = 0.9
    folds: int = 10
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise InvalidSetting(
                f"a confidence lies between 0 and 1, not {self.confidence}", field="confidence"
            )

    def runs_to_fit(self, domains: int) -> int:
        """Those of the regression, when the largest fold is left out."""
        return -(-self.regression.runs_to_fit(domains) * self.folds // (self.folds - 1))

    def fit(
        self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None
    ) -> FittedConformal:
        """Fit the regression to all runs and to all folds, of (K, m) mixtures and (K, T) metrics.

        Raises:
            TooFewRuns: K is too small for the regression when a fold is left out.
            InvalidMetrics: a metric the regression cannot work with.
        """
        folds = min(self.folds, len(weights))
        left_out = fold_masks(len(weights), folds, self.repeats, np.random.default_rng(self.seed))
        found = self.regression.fit_and_refit(weights, metrics, ~left_out, noise)
        unseen = (found.predicted * left_out[:, :, None]).reshape(self.repeats, -1, *metrics.shape).sum(1)
        return FittedConformal(found.whole, RunIntervals.of(unseen, metrics, self.confidence))


def _outer_quantiles(residuals: np.ndarray, confidence: float) -> np.ndarray:
    """(2, T) of (R, K, T): as many residuals outside as of K + 1 exchangeable runs, K of them and a new one."""
    tail = (1 - confidence) / 2
    found = np.full((2, residuals.shape[2]), np.nan)
    for column in range(residuals.shape[2]):
        measured = residuals[:, np.isfinite(residuals[0, :, column]), column]
        runs = measured.shape[1]
        if runs < 2:
            continue
        upper = min(1.0, (1 - tail) * (runs + 1) / runs)
        found[:, column] = -np.quantile(-measured, upper), np.quantile(measured, upper)
    return found
