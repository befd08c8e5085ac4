"""What a Gaussian process models of the metrics, and the mean it models it around.

A frame turns metrics into targets of prior mean 0, in a unit in which a process's usual priors fit, and predictions
of targets back into metrics. Its mean is a fixed part, which has been taken off the targets, and a linear one: the
process carries it as a covariance `columns` `columns`^T, whose coefficients are standard normal before the fit.
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.powers.effective_power import FittedEffectivePower, movable_columns
from mixing.laws.regression import Fitted, Regression

_LEVEL = 2.0
"""Prior deviation of a constant mean, in standard deviations of the targets."""
_BELOW = 0.5
"""Standard deviations of the metrics by which C of a constant mean lies below the lowest of them."""
_FOLDS = 5


@dataclass(frozen=True)
class Frame:
    """Targets of T tasks.

    Attributes:
        constants: (T,) C of log(y - C), or None where the targets are of y itself.
        level: (T,) taken off, in the unit of log(y - C) or of y.
        unit: (T,) by which the targets are divided.
        law: the effective power law around which the process is linear, if any.
        law_prior: (P-2,) mean and (P-2,) standard deviation of its movable parameters.
        mean: another fitted mean, if any.
        residuals: (K, T) what held-out predictions of that mean left of the metrics.
    """

    constants: np.ndarray | None
    level: np.ndarray
    unit: np.ndarray
    law: FittedEffectivePower | None = None
    law_prior: tuple[np.ndarray, np.ndarray] | None = None
    mean: Fitted | None = None
    residuals: np.ndarray | None = None

    def targets(self, weights: np.ndarray, metrics: np.ndarray) -> np.ndarray:
        """(T, K) of the runs it was made for."""
        if self.residuals is not None:
            return self.residuals.T / self.unit[:, None]
        assert self.constants is not None
        logarithms = np.log(metrics - self.constants).T
        return (logarithms - self.fixed(weights)) / self.unit[:, None]

    def fixed(self, weights: np.ndarray) -> np.ndarray:
        """(T, n) the fixed mean at (n, m) mixtures, before the division by the unit."""
        if self.law is None or self.law_prior is None:
            return np.broadcast_to(self.level[:, None], (len(self.level), len(weights)))
        away = self.law_prior[0] - self.law.theta[:, movable_columns(self.law.theta.shape[1])]
        return self.law.log_gap(weights) + (self.law.sensitivity(weights) @ away[:, :, None])[:, :, 0]

    def columns(self, weights: np.ndarray, fidelity: np.ndarray | None) -> np.ndarray:
        """(T, n, c) or (1, n, c) of the linear mean at (n, m) mixtures, of these (n,) log sizes if any."""
        if self.law is not None and self.law_prior is not None:
            return self.law.sensitivity(weights) * (self.law_prior[1] / self.unit[:, None, None])
        if self.mean is not None:
            return np.zeros((1, len(weights), 1))
        constant = np.full((1, len(weights), 1), _LEVEL)
        return constant if fidelity is None else np.dstack([constant, _LEVEL * fidelity[None, :, None]])

    def rate(self, metrics: np.ndarray) -> np.ndarray:
        """(T, K) derivative of the targets by the metrics."""
        if self.constants is None:
            return np.broadcast_to(1 / self.unit[:, None], metrics.T.shape)
        return 1 / (metrics - self.constants).T / self.unit[:, None]

    def metrics(self, modelled: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(T, n) metrics at (n, m) mixtures of what is modelled there: log(y - C), or y less its fitted mean."""
        if self.constants is not None:
            return self.constants[:, None] + np.exp(modelled)
        assert self.mean is not None
        return self.mean.mean(weights).T + modelled

    def gradient(self, weights: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """(T, n, m) by the weights, of the fixed mean and the linear one with these (T, c) coefficients.

        Raises:
            InvalidSetting: the mean is a regression without a gradient.
        """
        if self.law is not None and self.law_prior is not None:
            centre, width = self.law_prior
            change = (
                centre + width * coefficients - self.law.theta[:, movable_columns(self.law.theta.shape[1])]
            )
            return self.law.log_gap_gradient(weights, change)
        if self.mean is None:
            return np.zeros((len(self.level), *weights.shape))
        if not self.mean.has_gradient:
            raise InvalidSetting(
                f"the mean of this process, {type(self.mean).__name__}, has no gradient", field="mean"
            )
        return self.mean.gradient(weights).transpose(1, 0, 2)


def constant_frame(metrics: np.ndarray) -> Frame:
    """log(y - C) about its average."""
    constants = metrics.min(0) - _BELOW * metrics.std(0)
    logarithms = np.log(metrics - constants)
    return Frame(constants, logarithms.mean(0), logarithms.std(0))


def law_frame(law: FittedEffectivePower, prior: tuple[np.ndarray, np.ndarray]) -> Frame:
    """log(y - C) about a law fitted under this prior, C being the law's; in units of the tasks' common noise."""
    centre, width = prior
    movable, tasks = movable_columns(len(centre)), len(law.theta)
    unit = np.full(tasks, np.exp(np.log(law.relative_noise).mean()))
    return Frame(law.constants, np.zeros(tasks), unit, law, (centre[movable], width[movable]))


def residual_frame(
    mean: Regression, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None
) -> Frame:
    """y about the predictions of any regression, each run's by a fold without it."""
    runs = len(weights)
    folds = np.random.default_rng(0).permutation(runs) % _FOLDS
    left_out = folds[None, :] == np.arange(_FOLDS)[:, None]
    predicted = mean.held_out(weights, metrics, ~left_out, noise)[folds, np.arange(runs)]
    residuals = metrics - predicted
    return Frame(
        constants=None,
        level=np.zeros(metrics.shape[1]),
        unit=residuals.std(0),
        mean=mean.fit(weights, metrics, noise),
        residuals=residuals,
    )
