"""Power laws of every domain's weight: the laws of BiMix and AutoScale as laws of a task over any swarm.

    BiMix (arXiv 2405.14908):      f(p) = c + sum_j F_j (p_j + eps)^-alpha_j
    AutoScale (arXiv 2407.20177):  f(p) = L + sum_j (N (alpha_j + p_j))^-gamma_j,    L <= min y

with F, alpha and gamma positive. Both are sums over domains and convex in each, hence convex in p, with a diagonal
Hessian. As published BiMix has no eps and cannot take p_j = 0; a floor max(p_j, eps) would not be convex at eps, a
shift is. AutoScale's terms have no factor of their own, so the unit of the metric and that of N matter.

The papers' own laws, a domain's loss over its own share or its own tokens, and their optima in closed form are in
`mixing.laws.powers.budgets`.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.exponential.parametric import Formula, ParametricRegression, Prior, Problems
from mixing.laws.regression import Expansion

_LARGEST_EXPONENT = 50.0


@dataclass(frozen=True)
class DomainPowers:
    """The formula c + sum_j exp(g_j) (p_j + eps)^-exp(l_j); its parameters are c, g, l."""

    eps: float

    def prior(self, domains: int) -> Prior:
        """Small terms of exponent about 0.3."""
        mean = np.concatenate([[-0.5], np.full(domains, -3.0), np.full(domains, np.log(0.3))])
        deviation = np.concatenate([[2.0], np.full(domains, 2.0), np.full(domains, 0.7)])
        return Prior(mean, np.diag(deviation**-2.0))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The prior's middle, with three sizes of all terms."""
        middle = self.prior(problems.runs.weights.shape[1]).mean
        found = []
        for size in (-4.0, -2.5, -1.5):
            start = np.tile(middle, (len(problems.metrics), 1))
            start[:, 1 : 1 + problems.runs.weights.shape[1]] = size
            found.append(start)
        return found

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return parameters[:, :1] + self._powers(parameters, weights)[0].sum(2)

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 1 + 2m)."""
        powers, exponent = self._powers(parameters, weights)
        falling = -exponent[:, None, :] * np.log(weights + self.eps) * powers
        return np.concatenate([np.ones((*powers.shape[:2], 1)), powers, falling], axis=2)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        powers, exponent = self._powers(parameters, weights)
        return -exponent[:, None, :] * powers / (weights + self.eps)

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """The Hessian is diagonal."""
        powers, exponent = self._powers(parameters, weights[None])
        terms = task_weights[:, None] * powers[:, 0]
        above = weights + self.eps
        return Expansion(
            value=float(task_weights @ parameters[:, 0] + terms.sum()),
            gradient=-(exponent * terms).sum(0) / above,
            diagonal=(exponent * (exponent + 1) * terms).sum(0) / above**2,
            factors=np.zeros((0, len(weights))),
        )

    def _powers(self, parameters: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, K, m) terms and (N, m) exponents."""
        domains = weights.shape[1]
        exponent = np.exp(parameters[:, 1 + domains :])
        logs = parameters[:, None, 1 : 1 + domains] - exponent[:, None, :] * np.log(weights + self.eps)
        return np.exp(np.minimum(logs, _LARGEST_EXPONENT)), exponent


@dataclass(frozen=True)
class EquivalentTokens:
    """The formula -exp(l) + sum_j (N (exp(a_j) + p_j))^-exp(g_j); its parameters are l, a, g.

    Values are above the lowest metric, so -exp(l) keeps L below it. exp(a_j) is what the other domains are worth to
    the task in place of domain j, as a share of the budget.
    """

    budget: float

    def prior(self, domains: int) -> Prior:
        """Equivalent shares about a hundredth; exponents at which a term is a few tenths of the metric's unit."""
        exponent = np.log(3.0 / np.log(self.budget))
        mean = np.concatenate([[0.0], np.full(domains, -4.0), np.full(domains, exponent)])
        deviation = np.concatenate([[2.0], np.full(domains, 2.0), np.full(domains, 1.0)])
        return Prior(mean, np.diag(deviation**-2.0))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The prior's middle with three exponents, and L so that the mean is met."""
        weights = problems.runs.weights
        middle, found = self.prior(weights.shape[1]).mean, []
        for shift in (-0.3, 0.0, 0.5):
            start = np.tile(middle, (len(problems.metrics), 1))
            start[:, 1 + weights.shape[1] :] += shift
            excess = self._powers(start, weights)[0].sum(2).mean(1) - problems.metrics.mean(1)
            start[:, 0] = np.log(np.maximum(excess, 0.1))
            found.append(start)
        return found

    def values(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K)."""
        return self._powers(parameters, weights)[0].sum(2) - np.exp(parameters[:, :1])

    def jacobian(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, 1 + 2m)."""
        powers, share, exponent = self._powers(parameters, weights)
        above = share[:, None, :] + weights
        shared = -exponent[:, None, :] * powers * share[:, None, :] / above
        falling = -exponent[:, None, :] * powers * np.log(self.budget * above)
        floor = np.broadcast_to(-np.exp(parameters[:, None, :1]), (*powers.shape[:2], 1))
        return np.concatenate([floor, shared, falling], axis=2)

    def gradient(self, parameters: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(N, K, m)."""
        powers, share, exponent = self._powers(parameters, weights)
        return -exponent[:, None, :] * powers / (share[:, None, :] + weights)

    def expand(self, parameters: np.ndarray, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """The Hessian is diagonal."""
        powers, share, exponent = self._powers(parameters, weights[None])
        terms = task_weights[:, None] * powers[:, 0]
        above = share + weights
        return Expansion(
            value=float(terms.sum() - task_weights @ np.exp(parameters[:, 0])),
            gradient=-(exponent * terms / above).sum(0),
            diagonal=(exponent * (exponent + 1) * terms / above**2).sum(0),
            factors=np.zeros((0, len(weights))),
        )

    def _powers(
        self, parameters: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, K, m) terms, (N, m) equivalent shares and (N, m) exponents."""
        domains = weights.shape[1]
        share, exponent = np.exp(parameters[:, 1 : 1 + domains]), np.exp(parameters[:, 1 + domains :])
        logs = -exponent[:, None, :] * np.log(self.budget * (share[:, None, :] + weights))
        return np.exp(np.minimum(logs, _LARGEST_EXPONENT)), share, exponent


@dataclass(frozen=True)
class BiMixLaw(ParametricRegression):
    """c + sum_j F_j (p_j + eps)^-alpha_j.

    Attributes:
        eps: weight added to every domain; on RegMix's runs 0.01 ranks better than less.

    Raises:
        InvalidSetting: eps is not positive.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = BiMixLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> mean.shape
    (20, 1)
    """

    eps: float = 1e-2
    name: ClassVar[str] = "BiMix law"

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise InvalidSetting(f"eps is {self.eps}; it must be above 0", field="eps")

    def formula(self) -> Formula:
        """What is fitted."""
        return DomainPowers(self.eps)


@dataclass(frozen=True)
class AutoScaleLaw(ParametricRegression):
    """L + sum_j (N (alpha_j + p_j))^-gamma_j, the metric in its own unit.

    Attributes:
        budget: N > 1, the data of a run, in a unit of which a term's (N (alpha_j + p_j))^-gamma_j is at most about
            the metric; on RegMix's losses tens rank better than the number of tokens.

    Raises:
        InvalidSetting: a budget of no more than one.

    >>> weights = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], size=20)
    >>> bits = 0.9 + np.exp(weights @ [[-1.0], [0.5], [0.2]])
    >>> mean, deviation = AutoScaleLaw().fit(weights, bits).predict(weights)  # both (runs, tasks)
    >>> mean.shape
    (20, 1)
    """

    budget: float = 30.0
    name: ClassVar[str] = "AutoScale law"
    standardised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.budget > 1:
            raise InvalidSetting(f"budget is {self.budget}; it must be above 1", field="budget")

    def formula(self) -> Formula:
        """What is fitted."""
        return EquivalentTokens(self.budget)
