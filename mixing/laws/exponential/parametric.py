"""Maximum a posteriori fits of any law with a Jacobian, all tasks, starts and resamples in one batch.

A law sees the metrics of a task standardised, y = location + scale * value, so that its priors mean the same for
every task. The likelihood is Student's t with 4 degrees of freedom, whose scale is found along with the parameters:
runs that went wrong pull less the further off they are. The priors are proper, so the fit is determined even where
runs are fewer than parameters; what the runs leave open shows in the stated deviation.

The descent is Levenberg-Marquardt on the reweighted least squares that the t likelihood amounts to (an EM algorithm),
from several starts a task; after a few iterations only the two best go on.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mixing.inverses import posterior_covariance
from mixing.laws.exponential.formulas import Formula, Prior
from mixing.laws.exponential.huber_descent import Runs, exponents_above, quantiles
from mixing.laws.regression import Expansion, Fitted, Regression, importance

_NU = 4.0
_SMALLEST_SCALE = 1e-5  # of the noise, where a metric's deviation is 1
_MEMORY = 6_000_000  # numbers in the largest stacked array
_LARGEST_STEP = 3.0
_HOPELESS = 1e8
_SCREENING = 12
_FINALISTS = 2


@dataclass(frozen=True)
class Problems:
    """N fits over the same mixtures: (N, K) standardised metrics and their importance, 0 to leave a run out."""

    runs: Runs
    metrics: np.ndarray
    importance: np.ndarray

    def part(self, chosen: np.ndarray | slice) -> "Problems":
        """The problems at these positions."""
        return replace(self, metrics=self.metrics[chosen], importance=self.importance[chosen])

    def exponentials_above(self, shares: Sequence[float]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(N, 1) constants, below which so much of the runs lie, each with the (N, m) exponents of what is above."""
        for constant in quantiles(self.metrics, self.importance, shares):
            exponents = exponents_above(self.runs, self.metrics, self.importance, constant)
            yield constant[:, None], exponents


@dataclass(frozen=True)
class FittedLaw(Fitted):
    """A law of T tasks.

    Attributes:
        formula: the law.
        parameters: (T, P) as the formula defines them, for the standardised metrics.
        covariance: (T, P, P) of the parameters.
        location: (T,) and
        scale: (T,) metric = location + scale * value.
        noise: (T,) scale of the t distribution of the residuals, in the metric's unit.
    """

    formula: Formula
    parameters: np.ndarray
    covariance: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    noise: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the law (not of a new measurement), both (n, T), of (n, m) mixtures."""
        values = self.formula.values(self.parameters, weights)
        jacobian = self.formula.jacobian(self.parameters, weights)
        variance = ((jacobian @ self.covariance) * jacobian).sum(2)
        mean = self.location[:, None] + self.scale[:, None] * values
        return mean.T, (self.scale[:, None] * np.sqrt(np.maximum(variance, 0))).T

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """(n, T) the mean alone."""
        return self.location + self.scale * self.formula.values(self.parameters, weights).T

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(n, T, m) derivatives d f_t / d p_j, the weights taken as independent."""
        return (self.scale[:, None, None] * self.formula.gradient(self.parameters, weights)).transpose(
            1, 0, 2
        )

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Sum of the tasks to second order at one (m,) mixture."""
        expansion = self.formula.expand(self.parameters, weights, task_weights * self.scale)
        return expansion.plus(float(task_weights @ self.location))


@dataclass(frozen=True)
class Settings:
    """Of the descent: most iterations, and the fall of the negative log posterior (nats) at which it ends."""

    iterations: int = 120
    tolerance: float = 1e-5


class ParametricRegression(Regression, ABC):
    """A regression that fits one formula to every task.

    Every parameter has a proper prior, so fewer runs than parameters determine it; below m + 2 runs it would be
    little else than the prior, and is refused.
    """

    standardised: ClassVar[bool] = True
    """Whether a task is divided by its deviation; a formula without a factor of its own must keep the unit."""
    settings: ClassVar[Settings] = Settings()

    @abstractmethod
    def formula(self) -> Formula:
        """What is fitted."""

    @abstractmethod
    def starts(self, problems: Problems) -> list[np.ndarray]:
        """(N, P) parameters to descend from, several times."""

    def runs_to_fit(self, domains: int) -> int:
        """Two more than domains."""
        return domains + 2

    def fit(self, weights: np.ndarray, metrics: np.ndarray, noise: np.ndarray | None = None) -> FittedLaw:
        """Fit every task to (K, m) mixtures and (K, T) metrics, finite, with (K, T) deviations where known.

        Raises:
            TooFewRuns: K < m + 2.
            InvalidMetrics: a metric that is not finite, or that is constant.
        """
        self.check(weights, metrics)
        return self.refits(weights, metrics, np.ones((1, len(weights)), bool), noise)[0]

    def refits(
        self,
        weights: np.ndarray,
        metrics: np.ndarray,
        kept: np.ndarray,
        noise: np.ndarray | None = None,
        whole: Fitted | None = None,
    ) -> list[FittedLaw]:
        """(B,) fits in one batch, each to the runs that its row of the (B, K) booleans `kept` keeps.

        A subset smaller than `runs_to_fit` is fitted all the same: the priors decide what it leaves open. From
        the `whole` fit there is one start instead of several.
        """
        formula, (runs, tasks) = self.formula(), metrics.shape
        trust = (importance(metrics, noise).T[None] * kept[:, None, :]).reshape(-1, runs)
        targets = np.tile(metrics.T, (len(kept), 1))
        location, scale = _standard(targets, trust, self.standardised)
        problems = Problems(Runs(weights), (targets - location[:, None]) / scale[:, None], trust)
        near = isinstance(whole, FittedLaw)
        starts = [np.tile(whole.parameters, (len(kept), 1))] if near else self.starts(problems)
        posterior = _Posterior.of(formula, problems)
        parameters, residual = _lowest(posterior, starts, self.settings)
        laws = []
        for part in (slice(first, first + tasks) for first in range(0, len(targets), tasks)):
            covariance = posterior.part(part).covariance(parameters[part], residual[part])
            unit = scale[part]
            laws.append(
                FittedLaw(formula, parameters[part], covariance, location[part], unit, residual[part] * unit)
            )
        return laws


_FLAT = 1e-9
"""Of the deviation over all runs: below it those that count are told apart by rounding alone."""


def _standard(
    targets: np.ndarray, importance: np.ndarray, standardise: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) lowest metric and (N,) deviation, of the runs that count.

    Where all of these measured the same, the deviation of the others too stands in, so that a run that is left out
    is no further off than it was.
    """
    kept = importance > 0
    location = np.where(kept, targets, np.inf).min(1)
    if not standardise:
        return location, np.ones(len(targets))
    count = kept.sum(1)
    mean = np.where(kept, targets, 0).sum(1) / count
    variance = np.where(kept, (targets - mean[:, None]) ** 2, 0).sum(1) / count
    own, every = np.sqrt(variance), targets.std(1)
    every = np.where(every > 0, every, 1.0)
    return location, np.where(own > _FLAT * every, own, every)


def _chunks(problems: Problems, width: int) -> list[slice]:
    count, runs = problems.metrics.shape
    size = max(1, _MEMORY // (runs * width))
    return [slice(first, first + size) for first in range(0, count, size)]


@dataclass(frozen=True)
class _Posterior:
    """What is descended: how far a formula is from the metrics of N problems, and its parameters from their prior."""

    formula: Formula
    problems: Problems
    prior: Prior

    @classmethod
    def of(cls, formula: Formula, problems: Problems) -> "_Posterior":
        return cls(formula, problems, formula.prior(problems.runs.weights.shape[1]))

    def part(self, chosen: np.ndarray | slice) -> "_Posterior":
        return replace(self, problems=self.problems.part(chosen))

    def residuals(self, parameters: np.ndarray) -> np.ndarray:
        """(N, K) at (N, P) parameters."""
        return self.formula.values(parameters, self.problems.runs.weights) - self.problems.metrics

    def trust(self, residuals: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N, K) precision of each run in the least squares that the t likelihood amounts to."""
        variance = np.square(noise)[:, None]
        return self.problems.importance * (_NU + 1) / (_NU * variance + residuals**2)

    def noise(self, residuals: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N,) one step of the t distribution's scale towards its best value."""
        trust = self.trust(residuals, noise) * np.square(noise)[:, None]
        variance = (trust * residuals**2).sum(1) / self.problems.importance.sum(1)
        return np.maximum(np.sqrt(variance), _SMALLEST_SCALE)

    def negative_log(self, parameters: np.ndarray, residuals: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N,) nats."""
        standard = np.square(residuals / noise[:, None]) / _NU
        nats = 0.5 * (_NU + 1) * np.log1p(standard) + np.log(noise)[:, None]
        away = parameters - self.prior.mean
        return (self.problems.importance * nats).sum(1) + 0.5 * ((away @ self.prior.precision) * away).sum(1)

    def step(
        self, parameters: np.ndarray, residuals: np.ndarray, noise: np.ndarray, damping: np.ndarray
    ) -> np.ndarray:
        """(N, P) of Levenberg and Marquardt."""
        jacobian = self.formula.jacobian(parameters, self.problems.runs.weights)
        trust, precision = self.trust(residuals, noise), self.prior.precision
        matrix = (jacobian * trust[:, :, None]).transpose(0, 2, 1) @ jacobian + precision
        pull = (parameters - self.prior.mean) @ precision
        slope = ((trust * residuals)[:, None, :] @ jacobian)[:, 0] + pull
        diagonal = np.arange(matrix.shape[1])
        scale = matrix[:, diagonal, diagonal]
        matrix[:, diagonal, diagonal] += damping[:, None] * scale + 1e-12 * scale.max(1, keepdims=True)
        step = np.linalg.solve(matrix, -slope[:, :, None])[:, :, 0]
        return np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)

    def covariance(self, parameters: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N, P, P) inverse of the t likelihood's expected information plus the prior's precision."""
        problems, share = self.problems, (_NU + 1) / (_NU + 3) / np.square(noise)
        result = []
        for part in _chunks(problems, parameters.shape[1]):
            jacobian = self.formula.jacobian(parameters[part], problems.runs.weights)
            trust = problems.importance[part] * share[part, None]
            data = (jacobian * trust[:, :, None]).transpose(0, 2, 1) @ jacobian
            inverse = posterior_covariance(data, self.prior.precision)
            # Parameters the runs decided took as many runs' worth of noise with them.
            spent = np.einsum("nij,nji->n", inverse, data)
            runs = problems.importance[part].sum(1)
            result.append(inverse * (runs / np.maximum(runs - spent, 1))[:, None, None])
        return np.concatenate(result)


def _lowest(
    posterior: _Posterior, starts: list[np.ndarray], settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """(N, P) parameters and (N,) noise of the highest posterior found."""
    count = len(posterior.problems.metrics)
    owner, parameters = np.tile(np.arange(count), len(starts)), np.concatenate(starts)
    noise = np.full(len(parameters), np.inf)  # not known before the first residuals
    if len(starts) > _FINALISTS:
        screening = replace(settings, iterations=_SCREENING)
        parameters, noise, loss = _descend(posterior.part(owner), parameters, noise, screening)
        finalists = loss.reshape(len(starts), count).argsort(0)[:_FINALISTS]
        chosen = (finalists * count + np.arange(count)).ravel()
        parameters, noise, owner = parameters[chosen], noise[chosen], owner[chosen]
    parameters, noise, loss = _descend(posterior.part(owner), parameters, noise, settings)
    best = loss.reshape(-1, count).argmin(0) * count + np.arange(count)
    return parameters[best], noise[best]


def _descend(
    posterior: _Posterior, parameters: np.ndarray, noise: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, P) parameters, (N,) noise and (N,) negative log posterior where each ends."""
    results = [
        _descend_chunk(posterior.part(part), parameters[part].copy(), noise[part], settings)
        for part in _chunks(posterior.problems, parameters.shape[1])
    ]
    stacked = [np.concatenate(pieces) for pieces in zip(*results, strict=True)]
    return stacked[0], stacked[1], stacked[2]


def _descend_chunk(
    posterior: _Posterior, parameters: np.ndarray, noise: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, importance = len(parameters), posterior.problems.importance
    live, damping, current = np.arange(count), np.full(count, 1e-2), posterior
    residuals = posterior.residuals(parameters)
    squares = (importance * residuals**2).sum(1) / importance.sum(1)
    noise = np.where(np.isfinite(noise), noise, np.sqrt(squares) + _SMALLEST_SCALE)
    final = posterior.negative_log(parameters, residuals, noise)
    loss = final.copy()
    for _ in range(settings.iterations):
        here = parameters[live]
        proposed = here + current.step(here, residuals, noise[live], damping)
        next_residuals = current.residuals(proposed)
        next_loss = current.negative_log(proposed, next_residuals, noise[live])
        better = next_loss <= loss
        parameters[live[better]] = proposed[better]
        residuals[better] = next_residuals[better]
        gain = np.where(better, loss - next_loss, 0)
        stopped = (better & (gain <= settings.tolerance)) | (damping > _HOPELESS)
        damping = np.clip(damping * np.where(better, 0.2, 4), 1e-9, 10 * _HOPELESS)
        noise[live] = current.noise(residuals, noise[live])
        loss = current.negative_log(parameters[live], residuals, noise[live])
        final[live] = loss
        if stopped.any():
            going = ~stopped
            live, loss, damping, residuals = live[going], loss[going], damping[going], residuals[going]
            current = current.part(going)
        if not len(live):
            break
    return parameters, noise, final
