"""Laws with interactions of low rank between domains, convex in p by their form.

    on the linear law:      f(p) = c . p + sum_r (u_r . p)^2
    on the log-linear law:  f(p) = c + exp(a . p + sum_r (u_r . p)^2)

Both add p^T U U^T p, of the rank that is asked for, where a full quadratic law would have m(m+1)/2 parameters. That
matrix is positive semidefinite, so the first is convex as it stands and the second as the exponential of something
convex: returns that diminish along r directions of the mixture.
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.exponential.formulas import (
    Constant,
    Exponential,
    Formula,
    Linear,
    Normal,
    SlopePrior,
    Squares,
    Sum,
)
from mixing.laws.exponential.parametric import ParametricRegression, Problems

_SIZES = (0.3, 1.5)
"""Lengths of u_r at which descents start; at 0 the interactions would have no slope."""


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
    title = "linear law with interactions"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidSetting(f"rank is {self.rank}; it must be at least 1", field="rank")

    def formula(self) -> Formula:
        """What is fitted."""
        return Sum((Linear(SlopePrior(30.0, 2.0, 10.0)), Squares(self.rank, Normal(0.0, 0.5))))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The linear law, and directions in which its residuals curve."""
        weights = problems.runs.weights
        moments = problems.runs.weighted_products(problems.importance) + 1e-2 * np.eye(weights.shape[1])
        right = (problems.importance * problems.metrics) @ weights
        slopes = np.linalg.solve(moments, right[:, :, None])[:, :, 0]
        return self._curving(slopes, problems.importance * (problems.metrics - slopes @ weights.T), weights)

    def _curving(self, slopes: np.ndarray, unexplained: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
        """Directions in which the (N, K) residuals of the (N, m) slopes alone curve upwards most."""
        centred = weights - weights.mean(0)
        moments = np.einsum("nk,ki,kj->nij", unexplained, centred, centred, optimize=True)
        _, vectors = np.linalg.eigh(moments)
        steepest = vectors[:, :, ::-1][:, :, : self.rank].transpose(0, 2, 1).reshape(len(slopes), -1)
        return [np.hstack([slopes, size * steepest]) for size in _SIZES]


@dataclass(frozen=True)
class LogLinearInteractionsLaw(LinearInteractionsLaw):
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
    title = "log-linear law with interactions"

    def formula(self) -> Formula:
        """What is fitted."""
        exponent = Sum((Linear(SlopePrior(30.0, -1.0, 2.0)), Squares(self.rank, Normal(0.0, 1.0))))
        return Sum((Constant(), Exponential(exponent)))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The log-linear law above several constants, and directions in which its residuals curve."""
        weights, found = problems.runs.weights, []
        for constant, slopes in problems.exponentials_above((0.0, 0.2)):
            rise = np.exp(np.clip(slopes @ weights.T, -50, 50))
            unexplained = problems.importance * rise * (problems.metrics - constant - rise)
            found += [np.hstack([constant, start]) for start in self._curving(slopes, unexplained, weights)]
        return found
