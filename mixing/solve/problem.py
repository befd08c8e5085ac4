"""The question put to a solver: an objective convex in the mixture, and named linear constraints on it.

Everything is stated on the leaves p; `SimplexMap` carries it to the q that is searched, p = E q.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import rel_entr

from mixing.errors import InvalidSetting, InvalidWeights, UnknownDomain
from mixing.laws.regression import Expansion, Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.repetition_cost import RepetitionCost


def normalized(weights: np.ndarray) -> np.ndarray:
    """(T,) task weights divided by their sum, so that all ones are the same as none given.

    Raises:
        InvalidWeights: a negative or infinite weight, or none above 0.
    """
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InvalidWeights(
            "the objective's weights must be non-negative and at least one above 0", field="objective"
        )
    return weights / weights.sum()


@dataclass(frozen=True)
class TaskMean:
    """A named weighted mean of tasks: a family, or one task alone.

    Attributes:
        name: the family's or the task's.
        weights: (T,) non-negative, summing to 1.
    """

    name: str
    weights: np.ndarray


def family_means(
    task_weights: np.ndarray, tasks: Sequence[str], families: Mapping[str, Collection[str]]
) -> tuple[TaskMean, ...]:
    """The mean of each family, its tasks weighted among themselves as in the objective.

    Args:
        task_weights: (T,) weights of the objective.
        tasks: (T,) names.
        families: `{family: names of its tasks}`.

    Raises:
        InvalidWeights: a family without a task of positive weight.
    """
    means = []
    for family, members in families.items():
        chosen = task_weights * np.array([task in members for task in tasks])
        if chosen.sum() <= 0:
            raise InvalidWeights(
                f"the family {family!r} has no task with a weight above 0", field="objective", names=[family]
            )
        means.append(TaskMean(family, chosen / chosen.sum()))
    return tuple(means)


@dataclass(frozen=True)
class Objective:
    """sum_t w_t f_t(p) + lambda KL(p || prior) + repetition cost, in the unit of the metrics (BPB), lower better.

    With `families` the first term is the worst of their means instead: max_k sum_t v_kt f_t(p).

    Attributes:
        law: T tasks over m domains; a convex one can be solved exactly, any other searched.
        task_weights: (T,) w_t, summing to 1 (see `normalized`); without say where there are families.
        prior: (m,) positive, the natural distribution.
        kl_weight: lambda >= 0.
        families: means of which the worst counts (see `family_means`).
        repetition: what reading a domain more than once costs.
    """

    law: Fitted
    task_weights: np.ndarray
    prior: np.ndarray
    kl_weight: float
    families: tuple[TaskMean, ...] = ()
    repetition: RepetitionCost | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.kl_weight) and self.kl_weight >= 0):
            raise InvalidSetting(
                f"kl_weight is {self.kl_weight}; it must be a number of at least 0", field="kl_weight"
            )

    def value(self, weights: np.ndarray) -> float:
        """The objective of a convex law at (m,) weights; 0 log 0 is 0."""
        return self.loss(weights) + float(self.beside_the_law(weights[None])[0])

    def loss(self, weights: np.ndarray) -> float:
        """The part a convex law predicts: the weighted mean over tasks, or the worst family's."""
        means = [family.weights for family in self.families] or [self.task_weights]
        return max(self.law.expand(weights, mean).value for mean in means)

    def predicted(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the objective of any law at (n, m) mixtures."""
        return self.of_predictions(self.law.predict(weights)[0], weights)

    def of_predictions(self, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) the objective where the law predicts (n, T) at (n, m) mixtures."""
        means = np.array([family.weights for family in self.families] or [self.task_weights])
        return (predictions @ means.T).max(axis=1) + self.beside_the_law(weights)

    def beside_the_law(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the KL term and the repetition cost at (n, m) mixtures."""
        cost = self.kl_weight * rel_entr(weights, self.prior).sum(axis=1)
        return cost if self.repetition is None else cost + self.repetition.value(weights)

    def smooth(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """sum_t w_t f_t plus the repetition cost to second order at (m,) weights, for given task weights."""
        expansion = self.law.expand(weights, task_weights)
        if self.repetition is None:
            return expansion
        value, slope, curvature = self.repetition.expand(weights)
        return Expansion(
            expansion.value + value,
            expansion.gradient + slope,
            expansion.diagonal + curvature,
            expansion.factors,
        )

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """`smooth` plus the KL term; at lambda > 0 the weights must be positive."""
        smooth = self.smooth(weights, task_weights)
        if self.kl_weight == 0:
            return smooth
        ratio = np.log(weights / self.prior)
        return Expansion(
            smooth.value + self.kl_weight * float(weights @ ratio),
            smooth.gradient + self.kl_weight * (ratio + 1),
            smooth.diagonal + self.kl_weight / weights,
            smooth.factors,
        )


@dataclass(frozen=True)
class LinearConstraint:
    """lower <= sum_j coefficients_j p_j <= upper, under a name a person can act on.

    A cap is `{domain: 1} <= cap`; the share of a group `{each member: 1}` in a range; a pin has
    lower == upper. Domains not mentioned have coefficient 0.
    """

    name: str
    coefficients: Mapping[str, float]
    lower: float = -np.inf
    upper: float = np.inf

    @classmethod
    def pin(cls, domain: str, weight: float) -> Self:
        """A domain held at one weight."""
        return cls(f"{domain} at {weight:g}", {domain: 1.0}, weight, weight)

    @classmethod
    def minimum(cls, domain: str, weight: float) -> Self:
        """The least weight of a domain."""
        return cls(f"{domain} at least {weight:g}", {domain: 1.0}, lower=weight)

    @classmethod
    def share(cls, name: str, domains: Collection[str], lower: float, upper: float) -> Self:
        """The total weight of a group within a range."""
        return cls(name, dict.fromkeys(domains, 1.0), lower, upper)

    def row(self, leaves: tuple[str, ...]) -> np.ndarray:
        """(m,) coefficients in the order of the leaves.

        Raises:
            UnknownDomain: the constraint mentions a domain that is no leaf.
        """
        if unknown := sorted(set(self.coefficients) - set(leaves)):
            raise UnknownDomain(
                f"the constraint {self.name!r} names unknown domains: {', '.join(unknown)}",
                field="constraints",
                names=unknown,
            )
        return np.array([float(self.coefficients.get(name, 0.0)) for name in leaves])


@dataclass(frozen=True)
class GuardRail:
    """sum_t v_t f_t(p) <= bound: a task or family that must not be predicted worse than `bound`.

    Attributes:
        mean: v and the name a person knows it by.
        bound: in the metric's unit, the law's constants included.
    """

    mean: TaskMean
    bound: float


def check_names(leaves: Collection[str], names: Sequence[str]) -> None:
    """Raise InvalidSetting where a constraint's name would not tell it from another constraint or from a cap."""
    seen = set(leaves)
    for name in names:
        if name in seen:
            raise InvalidSetting(
                f"the constraint name {name!r} is taken by another constraint or a domain; name it otherwise",
                field="constraints",
                names=[name],
            )
        seen.add(name)


@dataclass(frozen=True)
class MixtureProblem:
    """Minimise `objective` over the mixtures p = E q that respect the caps, constraints and guard rails.

    Attributes:
        objective: on the leaves.
        space: the map from what is searched to the leaves.
        caps: (m,) largest weight of each leaf; at or above 1 it is no constraint.
        constraints: further linear constraints on the leaves.
        guard_rails: bounds on predicted tasks; convex where the law is.

    Raises:
        InvalidSetting: two constraints or guard rails of one name, or one named like a domain.
        InvalidWeights: a family or guard rail over another number of tasks than the objective.
    """

    objective: Objective
    space: SimplexMap
    caps: np.ndarray
    constraints: tuple[LinearConstraint, ...] = ()
    guard_rails: tuple[GuardRail, ...] = ()

    def __post_init__(self) -> None:
        names = [item.name for item in self.constraints] + [item.mean.name for item in self.guard_rails]
        check_names(self.space.leaves, names)
        tasks = self.objective.task_weights.shape
        for mean in (*self.objective.families, *(item.mean for item in self.guard_rails)):
            if mean.weights.shape != tasks:
                raise InvalidWeights(
                    f"{mean.name!r} weighs {len(mean.weights)} tasks, the objective {tasks[0]}",
                    field="objective",
                    names=[mean.name],
                )
