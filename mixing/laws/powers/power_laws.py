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
from mixing.laws.exponential.formulas import (
    Constant,
    EquivalentPowers,
    Floor,
    Formula,
    Normal,
    ShiftedPowers,
    Sum,
)
from mixing.laws.exponential.parametric import ParametricRegression, Problems


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
    title = "BiMix law"

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise InvalidSetting(f"eps is {self.eps}; it must be above 0", field="eps")

    def formula(self) -> Formula:
        """Terms are believed small, of exponent about 0.3."""
        powers = ShiftedPowers(self.eps, Normal(-3.0, 2.0), Normal(float(np.log(0.3)), 0.7))
        return Sum((Constant(Normal(-0.5, 2.0)), powers))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The prior's middle, with three sizes of all terms."""
        domains, found = problems.runs.weights.shape[1], []
        for size in (-4.0, -2.5, -1.5):
            start = np.tile(self.formula().prior(domains).mean, (len(problems.metrics), 1))
            start[:, 1 : 1 + domains] = size
            found.append(start)
        return found


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
    title = "AutoScale law"
    standardised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.budget > 1:
            raise InvalidSetting(f"budget is {self.budget}; it must be above 1", field="budget")

    def formula(self) -> Formula:
        """The floor keeps L below the lowest metric."""
        return Sum((Floor(Normal(0.0, 2.0)), EquivalentPowers(self.budget)))

    def starts(self, problems: Problems) -> list[np.ndarray]:
        """The prior's middle with three exponents, and L so that the mean is met."""
        weights, powers, found = problems.runs.weights, EquivalentPowers(self.budget), []
        domains = weights.shape[1]
        for shift in (-0.3, 0.0, 0.5):
            start = np.tile(powers.prior(domains).mean, (len(problems.metrics), 1))
            start[:, domains:] += shift
            excess = powers.values(start, weights).mean(1) - problems.metrics.mean(1)
            found.append(np.hstack([np.log(np.maximum(excess, 0.1))[:, None], start]))
        return found
