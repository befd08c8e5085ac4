"""What the fitted laws are sums of: a constant, exponentials, squares of projections, powers of weights. All convex.

    Constant                c
    Floor                   -exp(l)
    Linear                  a . p
    Squares                 sum_r (u_r . p)^2
    Exponential(inner)      exp(inner), which is convex where the inner one is
    ShiftedPowers           sum_j exp(g_j) (p_j + eps)^-exp(l_j)
    EquivalentPowers        sum_j (N (exp(a_j) + p_j))^-exp(g_j)
    Sum(parts)              the parts' sum, its parameters theirs one after the other

Parameters are (N, P), one row a task (or a task's start or resample), mixtures (K, m).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import accumulate, pairwise

import numpy as np
from scipy.linalg import block_diag

from mixing.laws.regression import Expansion

_LARGEST_EXPONENT = 50.0

Curvature = tuple[np.ndarray, np.ndarray]
"""(m,) diagonal and (r, m) factors of a Hessian, as in `Expansion`."""


@dataclass(frozen=True)
class Prior:
    """A normal prior: (P,) mean and (P, P) precision."""

    mean: np.ndarray
    precision: np.ndarray

    @classmethod
    def beside(cls, priors: Sequence["Prior"]) -> "Prior":
        """Of parameters that are independent of each other."""
        means = np.concatenate([prior.mean for prior in priors])
        return cls(means, np.asarray(block_diag(*(prior.precision for prior in priors))))


@dataclass(frozen=True)
class Normal:
    """The same mean and deviation for every one of a number of parameters."""

    mean: float
    deviation: float

    def of(self, count: int) -> Prior:
        """The prior of so many."""
        return Prior(np.full(count, self.mean), np.eye(count) / self.deviation**2)


@dataclass(frozen=True)
class SlopePrior:
    """Normal prior of the m coefficients of one exponent, equal for all domains.

    Attributes:
        spread: deviation of a coefficient from their mean.
        level: mean of the mean coefficient, and
        level_spread: its deviation.
    """

    spread: float
    level: float
    level_spread: float

    def of(self, domains: int) -> Prior:
        """The prior over so many domains."""
        mean = np.full((domains, domains), 1 / domains)
        precision = (np.eye(domains) - mean) / self.spread**2 + mean / domains / self.level_spread**2
        return Prior(np.full(domains, self.level), precision)


class Formula(ABC):
    """A law with P parameters a task."""

    @abstractmethod
    def prior(self, domains: int) -> Prior:
        """What is believed of a task's parameters before any run."""

    @abstractmethod
    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""

    @abstractmethod
    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, P) derivatives of the values in the parameters."""

    @abstractmethod
    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m) derivatives of the values in the weights."""

    def curvature(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Curvature:
        """Of the weighted sum of the tasks at one (m,) mixture; none of what is flat."""
        return np.zeros(len(weights)), np.zeros((0, len(weights)))

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """The weighted sum of the tasks to second order at one (m,) mixture."""
        return Expansion(
            float(task_weights @ self.values(parameters, weights[None])[:, 0]),
            task_weights @ self.gradient(parameters, weights[None])[:, 0],
            *self.curvature(parameters, weights, task_weights),
        )


@dataclass(frozen=True)
class Constant(Formula):
    """c, by default believed about half a deviation below the lowest metric."""

    belief: Normal = Normal(-0.5, 1.0)

    def prior(self, domains: int) -> Prior:
        """Of c."""
        return self.belief.of(1)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 1)."""
        return parameters

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(1, 1, 1)."""
        return np.ones((1, 1, 1))

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(1, 1, m) zeros."""
        return np.zeros((1, 1, weights.shape[1]))


class Floor(Constant):
    """-exp(l), which stays below the lowest metric, from which values are counted."""

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 1)."""
        return -np.exp(parameters)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 1, 1)."""
        return -np.exp(parameters)[:, None]


@dataclass(frozen=True)
class Linear(Formula):
    """a . p."""

    slopes: SlopePrior

    def prior(self, domains: int) -> Prior:
        """Of a."""
        return self.slopes.of(domains)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return parameters @ weights.T

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(1, K, m)."""
        return weights[None]

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, 1, m)."""
        return parameters[:, None]


@dataclass(frozen=True)
class Squares(Formula):
    """sum_r (u_r . p)^2; its parameters are u_1, ..., u_R."""

    rank: int
    belief: Normal

    def prior(self, domains: int) -> Prior:
        """Directions about 0."""
        return self.belief.of(self.rank * domains)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return np.square(weights @ self._directions(parameters).transpose(0, 2, 1)).sum(2)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, R m)."""
        projections = weights @ self._directions(parameters).transpose(0, 2, 1)
        turned = 2 * projections[:, :, :, None] * weights[:, None, :]
        return turned.reshape(*projections.shape[:2], -1)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        directions = self._directions(parameters)
        return 2 * (weights @ directions.transpose(0, 2, 1)) @ directions

    def curvature(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Curvature:
        """2 sum_t w_t sum_r u_tr u_tr^T: R factors a task."""
        factors = np.sqrt(2 * task_weights)[:, None] * parameters
        return np.zeros(len(weights)), factors.reshape(-1, len(weights))

    def _directions(self, parameters: np.ndarray) -> np.ndarray:
        """(N, R, m)."""
        return parameters.reshape(len(parameters), self.rank, -1)


@dataclass(frozen=True)
class Exponential(Formula):
    """exp of another formula, which has its parameters."""

    inner: Formula

    def prior(self, domains: int) -> Prior:
        """The inner formula's."""
        return self.inner.prior(domains)

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return np.exp(np.clip(self.inner.values(parameters, weights), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, P)."""
        return self.values(parameters, weights)[:, :, None] * self.inner.jacobian(parameters, weights)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        return self.values(parameters, weights)[:, :, None] * self.inner.gradient(parameters, weights)

    def curvature(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Curvature:
        """sum_t w_t exp(q_t) (q_t' q_t'^T + q_t''): a factor a task, and the inner ones."""
        pull = task_weights * self.values(parameters, weights[None])[:, 0]
        slopes = self.inner.gradient(parameters, weights[None])[:, 0]
        diagonal, factors = self.inner.curvature(parameters, weights, pull)
        return diagonal, np.concatenate([np.sqrt(pull)[:, None] * slopes, factors])


class Powers(Formula):
    """sum_j F_j (s_j + p_j)^-alpha_j; its Hessian is diagonal."""

    @abstractmethod
    def terms(self, parameters: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, K, m) terms, their alpha and their s + p, both to be broadcast against them."""

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return self.terms(parameters, weights)[0].sum(2)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        terms, exponents, above = self.terms(parameters, weights)
        return -exponents * terms / above

    def curvature(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Curvature:
        """alpha (alpha + 1) F (s + p)^(-alpha - 2) on the diagonal."""
        terms, exponents, above = self.terms(parameters, weights[None])
        bend = exponents * (exponents + 1) * terms / above**2
        return task_weights @ bend[:, 0], np.zeros((0, len(weights)))


@dataclass(frozen=True)
class ShiftedPowers(Powers):
    """sum_j exp(g_j) (p_j + eps)^-exp(l_j); its parameters are g and l, where `shared` one l for all domains."""

    eps: float
    factors: Normal
    exponents: Normal
    shared: bool = False

    def prior(self, domains: int) -> Prior:
        """Of g, then of l."""
        return Prior.beside([self.factors.of(domains), self.exponents.of(1 if self.shared else domains)])

    def terms(self, parameters: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Powers.terms`."""
        domains, above = weights.shape[1], weights + self.eps
        exponents = np.exp(parameters[:, None, domains:])
        logs = parameters[:, None, :domains] - exponents * np.log(above)
        return np.exp(np.minimum(logs, _LARGEST_EXPONENT)), exponents, above

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 2m), or m + 1 where the exponent is shared."""
        terms, exponents, above = self.terms(parameters, weights)
        falling = -exponents * np.log(above) * terms
        return np.concatenate([terms, falling.sum(2, keepdims=True) if self.shared else falling], axis=2)


@dataclass(frozen=True)
class EquivalentPowers(Powers):
    """sum_j (N (exp(a_j) + p_j))^-exp(g_j); its parameters are a and g.

    exp(a_j) is what the other domains are worth to the task in place of domain j, as a share of the budget N.
    """

    budget: float

    def prior(self, domains: int) -> Prior:
        """Equivalent shares about a hundredth; exponents at which a term is a few tenths of the metric's unit."""
        middle = float(np.log(3.0 / np.log(self.budget)))
        return Prior.beside([Normal(-4.0, 2.0).of(domains), Normal(middle, 1.0).of(domains)])

    def terms(self, parameters: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Powers.terms`."""
        domains = weights.shape[1]
        above = np.exp(parameters[:, None, :domains]) + weights
        exponents = np.exp(parameters[:, None, domains:])
        logs = -exponents * np.log(self.budget * above)
        return np.exp(np.minimum(logs, _LARGEST_EXPONENT)), exponents, above

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 2m)."""
        terms, exponents, above = self.terms(parameters, weights)
        falling = -exponents * terms
        share = np.exp(parameters[:, None, : weights.shape[1]])
        return np.concatenate([falling * share / above, falling * np.log(self.budget * above)], axis=2)


@dataclass(frozen=True)
class Sum(Formula):
    """The sum of its parts."""

    parts: tuple[Formula, ...]

    def prior(self, domains: int) -> Prior:
        """The parts', one beside the other."""
        return Prior.beside([part.prior(domains) for part in self.parts])

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return reduce(np.add, [part.values(own, weights) for part, own in self._apart(parameters, weights)])

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, P)."""
        blocks = [part.jacobian(own, weights) for part, own in self._apart(parameters, weights)]
        whole = len(parameters), len(weights)
        return np.concatenate([np.broadcast_to(block, (*whole, block.shape[2])) for block in blocks], axis=2)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        return reduce(np.add, [part.gradient(own, weights) for part, own in self._apart(parameters, weights)])

    def curvature(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Curvature:
        """The parts' added up."""
        apart = self._apart(parameters, weights[None])
        each = [part.curvature(own, weights, task_weights) for part, own in apart]
        diagonals, factors = zip(*each, strict=True)
        return np.sum(diagonals, axis=0), np.concatenate(factors)

    def _apart(self, parameters: np.ndarray, weights: np.ndarray) -> list[tuple[Formula, np.ndarray]]:
        slices = _slices(self.parts, weights.shape[1])
        return [(part, parameters[:, own]) for part, own in zip(self.parts, slices, strict=True)]


@cache
def _slices(parts: tuple[Formula, ...], domains: int) -> tuple[slice, ...]:
    """Where the parameters of each part stand."""
    ends = accumulate((len(part.prior(domains).mean) for part in parts), initial=0)
    return tuple(slice(*pair) for pair in pairwise(ends))
