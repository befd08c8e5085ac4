"""Laws with more than one term: several exponentials, one beside a power law, and interactions. All convex in p.

    several exponentials:  f(p) = c + sum_r exp(a_r . p)
    exponential + power:   f(p) = c + exp(a . p) + sum_j F_j (p_j + eps)^-alpha,   F_j >= 0

The first is the law of Data Mixing Laws (arXiv 2403.16952) with R terms instead of one: a task fed by domains that
saturate at different rates. The second adds the power term of BiMix (arXiv 2405.14908, one exponent a task) for what
a domain's first per mille buys, which an exponential cannot follow; eps keeps it finite and convex at p_j = 0.
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
    ShiftedPowers,
    SlopePrior,
    Squares,
    Sum,
)
from mixing.laws.exponential.parametric import ParametricRegression, Problems

_CONSTANTS = (0.0, 0.1, 0.3)  # quantiles of the metric at which c starts


@dataclass(frozen=True)
class ExponentialsLaw(ParametricRegression):
    """c + sum_r exp(a_r . p).

    Attributes:
        terms: R >= 1.

    Raises:
        InvalidSetting: no terms.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = ExponentialsLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.05)
    True
    """

    terms: int = 2
    title = "law of several exponentials"

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise InvalidSetting(f"terms is {self.terms}; it must be at least 1", field="terms")

    def formula(self) -> Formula:
        """Terms after the first are believed small and flat."""
        first = Exponential(Linear(SlopePrior(30.0, -1.0, 2.0)))
        further = Exponential(Linear(SlopePrior(1.0, -3.0, 2.0)))
        return Sum((Constant(), first, *[further] * (self.terms - 1)))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """One exponential above several constants, taken apart into steeper and flatter ones."""
        steepness = np.geomspace(2.0, 0.5, self.terms) if self.terms > 1 else np.ones(1)
        opposed = np.array([1.0, -1.0, 3.0, -3.0, 6.0, -6.0])[np.arange(self.terms) % 6]
        found = []
        for constant, whole in problems.exponentials_above(_CONSTANTS):
            level = whole.mean(1, keepdims=True)
            for pattern in (steepness, opposed)[: min(2, self.terms)]:
                parts = [level - np.log(self.terms) + share * (whole - level) for share in pattern]
                found.append(np.hstack([constant, *parts]))
        return found


@dataclass(frozen=True)
class ExponentialPowerLaw(ParametricRegression):
    """c + exp(a . p) + sum_j F_j (p_j + eps)^-alpha.

    Attributes:
        eps: weight added to every domain in the power terms.

    Raises:
        InvalidSetting: eps is not positive.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = ExponentialPowerLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> bool(np.abs(mean - bits).max() < 0.05)
    True
    """

    eps: float = 1e-3
    title = "exponential plus power law"

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise InvalidSetting(f"eps is {self.eps}; it must be above 0", field="eps")

    def formula(self) -> Formula:
        """Power terms are believed small, of exponent about 0.5."""
        rise = Exponential(Linear(SlopePrior(10.0, -1.0, 2.0)))
        half = Normal(float(np.log(0.5)), 0.5)
        return Sum((Constant(), rise, ShiftedPowers(self.eps, Normal(-5.0, 2.0), half, shared=True)))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """One exponential above several constants, the power terms as the prior has them."""
        domains = problems.runs.weights.shape[1]
        rest = np.tile(self.formula().prior(domains).mean[1 + domains :], (len(problems.metrics), 1))
        return [np.hstack([*start, rest]) for start in problems.exponentials_above(_CONSTANTS)]


# Laws with interactions of low rank between domains, convex in p by their form.
#
#     on the linear law:      f(p) = c . p + sum_r (u_r . p)^2
#     on the log-linear law:  f(p) = c + exp(a . p + sum_r (u_r . p)^2)
#
# Both add p^T U U^T p, of the rank that is asked for, where a full quadratic law would have m(m+1)/2 parameters. That
# matrix is positive semidefinite, so the first is convex as it stands and the second as the exponential of something
# convex: returns that diminish along r directions of the mixture.

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
