"""Laws with interactions of low rank between domains, convex in p by their form.

    on the linear law:      f(p) = c . p + sum_r (u_r . p)^2
    on the log-linear law:  f(p) = c + exp(a . p + sum_r (u_r . p)^2)

Both add p^T U U^T p, of the rank that is asked for, where a full quadratic law would have m(m+1)/2 parameters. That
matrix is positive semidefinite, so the first is convex as it stands and the second as the exponential of something
convex: returns that diminish along r directions of the mixture.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.exponential.exponentials import SlopePrior
from mixing.laws.exponential.huber_descent import exponents_above, quantiles
from mixing.laws.exponential.parametric import Formula, ParametricRegression, Prior, Problems
from mixing.laws.regression import Expansion

_LARGEST_EXPONENT = 50.0
_LINEAR_SLOPES = SlopePrior(30.0, 2.0, 10.0)
_LOG_LINEAR_SLOPES = SlopePrior(30.0, -1.0, 2.0)
_SIZES = (0.3, 1.5)
"""Lengths of u_r at which descents start; at 0 the interactions would have no slope."""


@dataclass(frozen=True)
class _Quadratic:
    """q(p) = a . p + sum_r (u_r . p)^2 with parameters a, u_1, ..., u_R."""

    rank: int

    def precision(self, domains: int, slopes: SlopePrior, interaction_spread: float) -> np.ndarray:
        width = domains * (1 + self.rank)
        precision = np.eye(width) / interaction_spread**2
        precision[:domains, :domains] = slopes.precision(domains)
        return precision

    def projections(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, R) u_r . p."""
        domains = weights.shape[1]
        directions = parameters[:, domains:].reshape(len(parameters), self.rank, domains)
        return weights @ directions.transpose(0, 2, 1)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        interactions = np.square(self.projections(parameters, weights)).sum(2)
        return parameters[:, : weights.shape[1]] @ weights.T + interactions

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m (1 + R))."""
        projections = self.projections(parameters, weights)
        count, runs, domains = len(parameters), *weights.shape
        turned = (2 * projections[:, :, :, None] * weights[:, None, :]).reshape(count, runs, -1)
        return np.concatenate([np.broadcast_to(weights, (count, runs, domains)), turned], axis=2)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        domains = weights.shape[1]
        directions = parameters[:, domains:].reshape(len(parameters), self.rank, domains)
        return parameters[:, None, :domains] + 2 * self.projections(parameters, weights) @ directions

    def starts(self, slopes: np.ndarray, unexplained: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        """Directions in which the (N, K) residuals of the (N, m) slopes alone curve upwards most."""
        centred = weights - weights.mean(0)
        moments = np.einsum("nk,ki,kj->nij", unexplained, centred, centred, optimize=True)
        _, vectors = np.linalg.eigh(moments)
        steepest = vectors[:, :, ::-1][:, :, : self.rank].transpose(0, 2, 1).reshape(len(slopes), -1)
        return [np.hstack([slopes, size * steepest]) for size in _SIZES]


@dataclass(frozen=True)
class LinearInteractions:
    """The formula c . p + sum_r (u_r . p)^2; its parameters are c, u_1, ..., u_R."""

    rank: int
    slopes: SlopePrior = _LINEAR_SLOPES
    interaction_spread: float = 0.5

    def prior(self, domains: int) -> Prior:
        """Coefficients about their mean, directions about 0."""
        mean = np.zeros(domains * (1 + self.rank))
        mean[:domains] = self.slopes.level
        return Prior(mean, self._quadratic.precision(domains, self.slopes, self.interaction_spread))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The linear law, and directions in which its residuals curve."""
        weights = problems.runs.weights
        width = weights.shape[1]
        moments = problems.runs.weighted_products(problems.importance) + 1e-2 * np.eye(width)
        right = (problems.importance * problems.metrics) @ weights
        slopes = np.linalg.solve(moments, right[:, :, None])[:, :, 0]
        unexplained = problems.importance * (problems.metrics - slopes @ weights.T)
        return self._quadratic.starts(slopes, unexplained, weights)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return self._quadratic.values(parameters, weights)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m (1 + R))."""
        return self._quadratic.jacobian(parameters, weights)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        return self._quadratic.gradient(parameters, weights)

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Hessian 2 sum_t w_t sum_r u_tr u_tr^T: R factors a task."""
        domains = len(weights)
        scaled = np.sqrt(2 * task_weights)[:, None] * parameters[:, domains:]
        return Expansion(
            value=float(task_weights @ self.values(parameters, weights[None])[:, 0]),
            gradient=task_weights @ self.gradient(parameters, weights[None])[:, 0],
            diagonal=np.zeros(domains),
            factors=scaled.reshape(-1, domains),
        )

    @property
    def _quadratic(self) -> _Quadratic:
        return _Quadratic(self.rank)


@dataclass(frozen=True)
class LogLinearInteractions:
    """The formula c + exp(a . p + sum_r (u_r . p)^2); its parameters are c, a, u_1, ..., u_R."""

    rank: int
    slopes: SlopePrior = _LOG_LINEAR_SLOPES
    interaction_spread: float = 1.0

    def prior(self, domains: int) -> Prior:
        """The constant about half a deviation below the lowest metric, coefficients about their mean."""
        inner = self._quadratic.precision(domains, self.slopes, self.interaction_spread)
        precision = np.zeros((len(inner) + 1, len(inner) + 1))
        precision[0, 0], precision[1:, 1:] = 1.0, inner
        mean = np.zeros(len(precision))
        mean[0], mean[1 : 1 + domains] = -0.5, self.slopes.level
        return Prior(mean, precision)

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The log-linear law above several constants, and directions in which its residuals curve."""
        weights, found = problems.runs.weights, []
        for constant in quantiles(problems.metrics, problems.importance, (0.0, 0.2)):
            slopes = exponents_above(problems.runs, problems.metrics, problems.importance, constant)
            rise = np.exp(np.clip(slopes @ weights.T, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
            unexplained = problems.importance * rise * (problems.metrics - constant[:, None] - rise)
            found += [
                np.hstack([constant[:, None], start])
                for start in self._quadratic.starts(slopes, unexplained, weights)
            ]
        return found

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return parameters[:, :1] + self._rise(parameters, weights)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 1 + m (1 + R))."""
        inner = self._quadratic.jacobian(parameters[:, 1:], weights)
        result = np.ones((*inner.shape[:2], inner.shape[2] + 1))
        result[:, :, 1:] = self._rise(parameters, weights)[:, :, None] * inner
        return result

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        return self._rise(parameters, weights)[:, :, None] * self._quadratic.gradient(
            parameters[:, 1:], weights
        )

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Hessian sum_t w_t exp(q_t) (q_t' q_t'^T + 2 sum_r u_tr u_tr^T): 1 + R factors a task."""
        domains = len(weights)
        pull = task_weights * self._rise(parameters, weights[None])[:, 0]
        slopes = self._quadratic.gradient(parameters[:, 1:], weights[None])[:, 0]
        root = np.sqrt(pull)[:, None]
        turned = np.sqrt(2) * root * parameters[:, 1 + domains :]
        return Expansion(
            value=float(task_weights @ parameters[:, 0] + pull.sum()),
            gradient=pull @ slopes,
            diagonal=np.zeros(domains),
            factors=np.concatenate([root * slopes, turned.reshape(-1, domains)]),
        )

    def _rise(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        exponent = self._quadratic.values(parameters[:, 1:], weights)
        return np.exp(np.clip(exponent, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))

    @property
    def _quadratic(self) -> _Quadratic:
        return _Quadratic(self.rank)


@dataclass(frozen=True)
class LinearInteractionsLaw(ParametricRegression):
    """c . p + sum_r (u_r . p)^2.

    Attributes:
        rank: R >= 1; at 0 it would be the linear law.

    Raises:
        InvalidSetting: a rank below 1.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = LinearInteractionsLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> mean.shape
    (20, 1)
    """

    rank: int = 2
    name: ClassVar[str] = "linear law with interactions"

    def __post_init__(self) -> None:
        _require_rank(self.rank)

    def formula(self) -> Formula:
        """What is fitted."""
        return LinearInteractions(self.rank)


@dataclass(frozen=True)
class LogLinearInteractionsLaw(ParametricRegression):
    """c + exp(a . p + sum_r (u_r . p)^2).

    Attributes:
        rank: R >= 1; at 0 it would be the log-linear law.

    Raises:
        InvalidSetting: a rank below 1.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = LogLinearInteractionsLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.05)
    True
    """

    rank: int = 1
    name: ClassVar[str] = "log-linear law with interactions"

    def __post_init__(self) -> None:
        _require_rank(self.rank)

    def formula(self) -> Formula:
        """What is fitted."""
        return LogLinearInteractions(self.rank)


def _require_rank(rank: int) -> None:
    if rank < 1:
        raise InvalidSetting(f"rank is {rank}; it must be at least 1", field="rank")
