"""Laws with more than one term: several exponentials, and an exponential beside a power law. All convex in p.

    several exponentials:  f(p) = c + sum_r exp(a_r . p)
    exponential + power:   f(p) = c + exp(a . p) + sum_j F_j (p_j + eps)^-alpha,   F_j >= 0

The first is the law of Data Mixing Laws (arXiv 2403.16952) with R terms instead of one: a task fed by domains that
saturate at different rates. The second adds the power term of BiMix (arXiv 2405.14908, one exponent a task) for what
a domain's first per mille buys, which an exponential cannot follow; eps keeps it finite and convex at p_j = 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.exponential.huber_descent import exponents_above, quantiles
from mixing.laws.exponential.parametric import Formula, ParametricRegression, Prior, Problems
from mixing.laws.regression import Expansion

_LARGEST_EXPONENT = 50.0
_CONSTANTS = (0.0, 0.1, 0.3)  # quantiles of the metric at which c starts


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

    def precision(self, domains: int) -> np.ndarray:
        """(m, m)."""
        mean = np.full((domains, domains), 1 / domains)
        return (np.eye(domains) - mean) / self.spread**2 + mean / domains / self.level_spread**2


def exponential(coefficients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, K) exp(a . p) of (N, m) coefficients at (K, m) mixtures."""
    return np.exp(np.clip(coefficients @ weights.T, -_LARGEST_EXPONENT, _LARGEST_EXPONENT))


@dataclass(frozen=True)
class Exponentials:
    """The formula c + sum_r exp(a_r . p); its parameters are c, a_1, ..., a_R."""

    terms: int
    slopes: SlopePrior = SlopePrior(30.0, -1.0, 2.0)
    further: SlopePrior = SlopePrior(1.0, -3.0, 2.0)

    def prior(self, domains: int) -> Prior:
        """Constants about half a deviation below the lowest metric; terms after the first small and flat."""
        width = 1 + self.terms * domains
        mean, precision = np.full(width, -0.5), np.zeros((width, width))
        precision[0, 0] = 1.0
        for number, term in enumerate(self._slices(domains)):
            slopes = self.further if number else self.slopes
            mean[term], precision[term, term] = slopes.level, slopes.precision(domains)
        return Prior(mean, precision)

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """One exponential above several constants, taken apart into steeper and flatter ones."""
        steepness = np.geomspace(2.0, 0.5, self.terms) if self.terms > 1 else np.ones(1)
        opposed = np.array([1.0, -1.0, 3.0, -3.0, 6.0, -6.0])[np.arange(self.terms) % 6]
        found = []
        for constant in quantiles(problems.metrics, problems.importance, _CONSTANTS):
            whole = exponents_above(problems.runs, problems.metrics, problems.importance, constant)
            level = whole.mean(1, keepdims=True)
            for pattern in (steepness, opposed)[: min(2, self.terms)]:
                parts = [level - np.log(self.terms) + share * (whole - level) for share in pattern]
                found.append(np.hstack([constant[:, None], *parts]))
        return found

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        terms = (exponential(parameters[:, term], weights) for term in self._slices(weights.shape[1]))
        return parameters[:, :1] + sum(terms)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 1 + R m)."""
        result = np.ones((len(parameters), len(weights), parameters.shape[1]))
        for term in self._slices(weights.shape[1]):
            result[:, :, term] = exponential(parameters[:, term], weights)[:, :, None] * weights
        return result

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        result = np.zeros((len(parameters), *weights.shape))
        for term in self._slices(weights.shape[1]):
            result += exponential(parameters[:, term], weights)[:, :, None] * parameters[:, None, term]
        return result

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Hessian sum_t w_t sum_r exp(a_tr . p) a_tr a_tr^T: R factors a task."""
        value, factors = float(task_weights @ parameters[:, 0]), []
        gradient = np.zeros(len(weights))
        for term in self._slices(len(weights)):
            pull = task_weights * exponential(parameters[:, term], weights[None])[:, 0]
            value += float(pull.sum())
            gradient += pull @ parameters[:, term]
            factors.append(np.sqrt(pull)[:, None] * parameters[:, term])
        return Expansion(value, gradient, np.zeros(len(weights)), np.concatenate(factors))

    def _slices(self, domains: int) -> list[slice]:
        return [slice(1 + r * domains, 1 + (r + 1) * domains) for r in range(self.terms)]


@dataclass(frozen=True)
class ExponentialPower:
    """The formula c + exp(a . p) + sum_j exp(g_j) (p_j + eps)^-exp(l); its parameters are c, a, g, l."""

    eps: float
    slopes: SlopePrior = SlopePrior(10.0, -1.0, 2.0)

    def prior(self, domains: int) -> Prior:
        """As for the exponentials; power terms small, of exponent about 0.5."""
        width = 2 + 2 * domains
        precision = np.zeros((width, width))
        precision[1 : 1 + domains, 1 : 1 + domains] = self.slopes.precision(domains)
        precision[np.arange(1 + domains, width), np.arange(1 + domains, width)] = 1 / 2.0**2
        precision[0, 0], precision[-1, -1] = 1.0, 1 / 0.5**2
        mean = np.concatenate(
            [[-0.5], np.full(domains, self.slopes.level), np.full(domains, -5.0), [np.log(0.5)]]
        )
        return Prior(mean, precision)

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """One exponential above several constants, the power terms as the prior has them."""
        domains = problems.runs.weights.shape[1]
        rest = np.tile(self.prior(domains).mean[1 + domains :], (len(problems.metrics), 1))
        return [
            np.hstack(
                [
                    constant[:, None],
                    exponents_above(problems.runs, problems.metrics, problems.importance, constant),
                    rest,
                ]
            )
            for constant in quantiles(problems.metrics, problems.importance, _CONSTANTS)
        ]

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        domains = weights.shape[1]
        powers = self._powers(parameters, weights)
        return parameters[:, :1] + exponential(parameters[:, 1 : 1 + domains], weights) + powers.sum(2)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 2 + 2m)."""
        domains = weights.shape[1]
        powers = self._powers(parameters, weights)
        result = np.ones((len(parameters), len(weights), parameters.shape[1]))
        rise = exponential(parameters[:, 1 : 1 + domains], weights)
        result[:, :, 1 : 1 + domains] = rise[:, :, None] * weights
        result[:, :, 1 + domains : -1] = powers
        logs = np.einsum("nkj,kj->nk", powers, np.log(weights + self.eps))
        result[:, :, -1] = -np.exp(parameters[:, -1:]) * logs
        return result

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        slopes = parameters[:, 1 : 1 + weights.shape[1]]
        falling = np.exp(parameters[:, -1])[:, None, None] * self._powers(parameters, weights)
        rise = exponential(slopes, weights)[:, :, None] * slopes[:, None, :]
        return rise - falling / (weights + self.eps)

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """Hessian of the exponentials as factors, of the power terms as diagonal."""
        slopes = parameters[:, 1 : 1 + len(weights)]
        pull = task_weights * exponential(slopes, weights[None])[:, 0]
        powers = task_weights[:, None] * self._powers(parameters, weights[None])[:, 0]
        exponent, above = np.exp(parameters[:, -1:]), weights + self.eps
        return Expansion(
            value=float(task_weights @ parameters[:, 0] + pull.sum() + powers.sum()),
            gradient=pull @ slopes - (exponent * powers).sum(0) / above,
            diagonal=(exponent * (exponent + 1) * powers).sum(0) / above**2,
            factors=np.sqrt(pull)[:, None] * slopes,
        )

    def _powers(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m) F_j (p_j + eps)^-alpha."""
        logs = parameters[:, None, 1 + weights.shape[1] : -1] - np.exp(parameters[:, -1])[
            :, None, None
        ] * np.log(weights + self.eps)
        return np.exp(np.minimum(logs, _LARGEST_EXPONENT))


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
    name: ClassVar[str] = "law of several exponentials"

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise InvalidSetting(f"terms is {self.terms}; it must be at least 1", field="terms")

    def formula(self) -> Formula:
        """What is fitted."""
        return Exponentials(self.terms)


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
    name: ClassVar[str] = "exponential plus power law"

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise InvalidSetting(f"eps is {self.eps}; it must be above 0", field="eps")

    def formula(self) -> Formula:
        """What is fitted."""
        return ExponentialPower(self.eps)
