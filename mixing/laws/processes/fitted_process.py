"""Gaussian processes after their fit: predictions, gradients, and what they say of runs left out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.processes.descent import Posterior, ProcessProblems, correlation, posterior, slope
from mixing.laws.processes.mean import Frame
from mixing.laws.regression import Fitted

_MEMORY = 250_000  # numbers in the largest array of a prediction: 2 MB, which a cache can hold


class Features(Protocol):
    """What the covariance sees of a mixture."""

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Features of weights, of their shape."""
        ...

    def slope(self, weights: np.ndarray) -> np.ndarray:
        """Derivative of each feature by its own weight."""
        ...


@dataclass(frozen=True)
class FittedProcess(Fitted):
    """The processes of T tasks over K runs of m domains.

    Attributes:
        features: of the mixtures.
        frame: what is modelled of the metrics.
        weights: (K, m) the runs.
        problems: the processes as they were fitted, each run's own noise included.
        theta: (T, P) hyperparameters.
        posterior: the processes given the runs.
        columns: (T, K, c) or (1, K, c) of the linear mean.
        size: the centred logarithm of the proxy size that is predicted, where the runs have several.
    """

    features: Features
    frame: Frame
    weights: np.ndarray
    problems: ProcessProblems
    theta: np.ndarray
    posterior: Posterior
    columns: np.ndarray
    size: float | None = None

    @classmethod
    def of(
        cls,
        features: Features,
        frame: Frame,
        weights: np.ndarray,
        problems: ProcessProblems,
        theta: np.ndarray,
        columns: np.ndarray,
    ) -> "FittedProcess":
        """Condition the processes on their runs."""
        given = posterior(problems, theta)
        size = None if problems.fidelity is None else float(problems.fidelity.max())
        return cls(features, frame, weights, problems, theta, given, columns, size)

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
