"""Laws with more than one term: several exponentials, and an exponential beside a power law. All convex in p.

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
