"""Gaussian processes after their fit: predictions, gradients, and what they say of runs left out."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.powers.effective_power import FittedEffectivePower, movable_columns
from mixing.laws.processes.descent import Posterior, ProcessProblems, correlation, descend, posterior, slope
from mixing.laws.regression import Fitted, Regression

# What a Gaussian process models of the metrics, and the mean it models it around.
#
# A frame turns metrics into targets of prior mean 0, in a unit in which a process's usual priors fit, and predictions
# of targets back into metrics. Its mean is a fixed part, which has been taken off the targets, and a linear one: the
# process carries it as a covariance `columns` `columns`^T, whose coefficients are standard normal before the fit.

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


_MEMORY = 250_000  # numbers in the largest array of a prediction: 2 MB, which a cache can hold


FEATURES = ("raw", "sqrt", "power", "log")


@dataclass(frozen=True)
class FeatureMap:
    """One increasing function of every weight, with values in about [0, 1].

    Attributes:
        kind: `raw` p; `sqrt` (p + floor)^(1/2); `power` (p + floor)^power; `log` log(1 + p / floor), scaled to 1.
        power: of the kind `power`.
        floor: keeps the slope at p = 0 finite.
    """

    kind: str = "power"
    power: float = 0.3
    floor: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in FEATURES:
            raise InvalidSetting(
                f"there is no feature map {self.kind!r}; the maps are {', '.join(FEATURES)}", field="features"
            )

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Features of any array of weights, of its shape."""
        if self.kind == "raw":
            return weights
        if self.kind == "log":
            return np.log1p(weights / self.floor) / np.log1p(1 / self.floor)
        return (weights + self.floor) ** self._exponent

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Derivative of each feature by its own weight."""
        if self.kind == "raw":
            return np.ones_like(weights)
        if self.kind == "log":
            return 1 / (weights + self.floor) / np.log1p(1 / self.floor)
        return self._exponent * (weights + self.floor) ** (self._exponent - 1)

    @property
    def _exponent(self) -> float:
        return 0.5 if self.kind == "sqrt" else self.power


@dataclass(frozen=True)
class FittedProcess(Fitted):
    """The processes of T tasks over K runs of m domains.

    Attributes:
        features: of the mixtures.
        frame: what is modelled of the metrics.
        weights: (K, m) the runs.
        problems: the processes as they were fitted, each run's own noise included.
        theta: (T, P) hyperparameters.
        curvature: (T, P, P) what their search learned of the inverse second derivatives of the likelihood.
        posterior: the processes given the runs.
        columns: (T, K, c) or (1, K, c) of the linear mean.
        size: the centred logarithm of the proxy size that is predicted, where the runs have several.
    """

    features: FeatureMap
    frame: Frame
    weights: np.ndarray
    problems: ProcessProblems
    theta: np.ndarray
    curvature: np.ndarray
    posterior: Posterior
    columns: np.ndarray
    size: float | None = None

    @classmethod
    def of(
        cls,
        features: FeatureMap,
        frame: Frame,
        weights: np.ndarray,
        problems: ProcessProblems,
        found: tuple[np.ndarray, np.ndarray],
        columns: np.ndarray,
    ) -> "FittedProcess":
        """Condition the processes on their runs; `found` are theta and curvature, as a descent gives them."""
        given = posterior(problems, found[0])
        size = None if problems.fidelity is None else float(problems.fidelity.max())
        return cls(features, frame, weights, problems, *found, given, columns, size)

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the process (not of a new measurement), both (n, T), of (n, m) mixtures."""
        mean, deviation = self._chunked(weights, self._predict)
        return mean, deviation

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone, at a small part of the cost of `predict`."""
        return self._chunked(weights, lambda rows: (self._mean(rows),))[0]

    @property
    def has_gradient(self) -> bool:
        """Whether its mean has one."""
        return self.frame.mean is None or self.frame.mean.has_gradient

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j, the weights taken as independent.

        Raises:
            InvalidSetting: the mean is a regression without a gradient.
        """
        return self._chunked(weights, lambda rows: (self._gradient(rows).transpose(1, 0, 2),))[0]

    def without(self, out: np.ndarray) -> "FittedProcess":
        """The processes given all runs but (o,) `out`; the hyperparameters stay those of all runs.

        Raises:
            InvalidSetting: the mean is a regression that would have to be fitted again.
        """
        if self.frame.mean is not None:
            raise InvalidSetting(
                f"the mean of this process, {type(self.frame.mean).__name__}, was fitted to all runs;"
                " use the regression's own held_out",
                field="mean",
            )
        return replace(self, posterior=self.posterior.without(out)[0])

    def again(self, rows: np.ndarray, iterations: int, tolerance: float) -> "FittedProcess":
        """The processes given the (k,) `rows` alone, their hyperparameters found by these, from those of all runs."""
        problems = self.problems.runs(rows)
        found = descend(problems, self.theta, iterations, tolerance, self.curvature)
        columns = self.columns[:, rows]
        return self.of(self.features, self.frame, self.weights[rows], problems, found, columns)

    def at_runs(self) -> np.ndarray:
        """(K, T) predictions at the runs, of which the covariances are known."""
        noise = np.exp(2 * self.theta[:, self.weights.shape[1] + 1])[:, None] * self.problems.inflation
        targets = self.problems.targets - noise * self.posterior.dual
        modelled = self.frame.fixed(self.weights) + self.frame.unit[:, None] * targets
        return self.frame.metrics(modelled, self.weights).T

    def held_out(self, kept: np.ndarray) -> np.ndarray:
        """(B, K, T) predictions at the K runs by `without` those that a row of the (B, K) booleans does not keep."""
        noise = np.exp(2 * self.theta[:, self.weights.shape[1] + 1])[:, None] * self.problems.inflation
        fixed = self.frame.fixed(self.weights)
        predictions = np.empty((len(kept), *self.problems.targets.T.shape))
        for b, rows in enumerate(kept):
            out = np.flatnonzero(~rows)
            alone, missed = self.posterior.without(out)
            targets = self.problems.targets - noise * alone.dual
            targets[:, out] -= missed
            modelled = fixed + self.frame.unit[:, None] * targets
            predictions[b] = self.frame.metrics(modelled, self.weights).T
        return predictions

    def at(self, size: float) -> "FittedProcess":
        """The same processes, predicting at another centred logarithm of the proxy size."""
        return replace(self, size=size)

    def _mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T)."""
        return self.frame.metrics(self._modelled(weights, self._covariance(weights)), weights).T

    def _modelled(self, weights: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """(T, n) what is modelled of the metric, by the (T, n, K) covariances with the runs."""
        deviation = self.frame.unit[:, None] * (covariance @ self.posterior.dual[:, :, None])[:, :, 0]
        linear = self._columns(weights) @ self._coefficients()[:, :, None]
        return self.frame.fixed(weights) + deviation + self.frame.unit[:, None] * linear[:, :, 0]

    def _predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        covariance = self._covariance(weights)
        modelled = self._modelled(weights, covariance)
        mean = self.frame.metrics(modelled, weights)
        columns = self._columns(weights)
        covariance = covariance + columns @ self.columns.transpose(0, 2, 1)
        variance = np.exp(2 * self.theta[:, self.weights.shape[1], None]) + (columns**2).sum(2)
        variance = variance - ((covariance @ self.posterior.precision) * covariance).sum(2)
        rate = self.frame.rate(mean.T)
        return mean.T, (np.sqrt(np.maximum(variance, 0)) / rate).T

    def _gradient(self, weights: np.ndarray) -> np.ndarray:
        """(T, n, m)."""
        features, runs = self.features(weights), self.problems.features
        pull = slope(self.theta, features, runs, self._apart(len(weights)))
        pull *= self.posterior.dual[:, None, :]
        towards = pull @ runs - pull.sum(2)[:, :, None] * features
        towards *= np.exp(-2 * self.theta[:, None, : runs.shape[1]]) * self.features.slope(weights)
        deviation = self.frame.unit[:, None, None] * towards
        deviation = deviation + self.frame.gradient(weights, self._coefficients())
        if self.frame.constants is None:
            return deviation
        gap = self.frame.metrics(self._modelled(weights, self._covariance(weights)), weights)
        gap = gap - self.frame.constants[:, None]
        return gap[:, :, None] * deviation

    def _covariance(self, weights: np.ndarray) -> np.ndarray:
        apart = self._apart(len(weights))
        return correlation(self.theta, self.features(weights), self.problems.features, apart)

    def _columns(self, weights: np.ndarray) -> np.ndarray:
        return self.frame.columns(weights, None if self.size is None else np.full(len(weights), self.size))

    def _coefficients(self) -> np.ndarray:
        """(T, c) posterior mean of the linear mean's coefficients."""
        return (self.posterior.dual[:, None, :] @ self.columns)[:, 0]

    def _apart(self, count: int) -> np.ndarray | None:
        if self.size is None or self.problems.fidelity is None:
            return None
        return np.broadcast_to(self.size - self.problems.fidelity, (count, len(self.weights)))

    def _chunked(
        self, weights: np.ndarray, function: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    ) -> tuple[np.ndarray, ...]:
        rows = max(1, _MEMORY // self.problems.targets.size)
        parts = [function(weights[at : at + rows]) for at in range(0, max(len(weights), 1), rows)]
        joined = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        return tuple(joined)
