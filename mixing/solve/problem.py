"""The question put to a solver: an objective convex in the mixture, under caps, constraints and guard rails.

Everything is stated on the leaves p; `SimplexMap` carries it to the q that is searched, p = E q.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import rel_entr

from mixing.errors import InvalidSetting, InvalidWeights
from mixing.laws.regression import Expansion, Fitted
from mixing.simplex_map import SimplexMap
from mixing.solve.constraints import LinearConstraint, LinearSystem, check_names

HALF_LIFE_EPOCHS = 15.387756
"""R* of Muennighoff et al., Scaling Data-Constrained Language Models (arXiv 2305.16264)."""


@dataclass(frozen=True)
class RepetitionCost:
    """Repetition as a cost instead of a cap: what a token read again no longer teaches.

    Of the p_j R tokens that a mixture reads from a domain of N_j unique tokens, D'(p_j R) are worth fresh ones
    (arXiv 2305.16264): D' = U + U R* (1 - exp(-(D/U - 1) / R*)) for D > U, else D. The rest is lost, as a share of
    the whole run

        l_j(p_j) = p_j - D'_j / R = x - u R* (1 - exp(-x / (u R*))),   x = max(p_j - u, 0),   u = N_j / R.

    D' is concave, so l_j is convex, 0 up to one epoch and smooth there, and the cost price * sum_j l_j(p_j) keeps a
    convex problem convex. Putting D'_j / R into the law in place of p_j would be the other way. It is convex only
    where every task's loss falls in every weight, which on the simplex, where a log-linear law's effects are defined
    up to a constant, means nothing; and it would reward repeating a domain that the law says does harm.

    The price is per share of the run's tokens, in the objective's unit. A loss that falls with the tokens as
    dL / d log D = -s loses s l to first order when the share l of its tokens teaches nothing, so the price is s: for
    L = E + B D^-b it is b B D^-b.

    Attributes:
        price: per share of the tokens, at least 0.
        once: (m,) u_j = N_j / R, the weight at which a domain is read exactly once.
    """

    price: float
    once: np.ndarray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.price) and self.price >= 0):
            raise InvalidSetting(
                f"the price of repetition is {self.price}; it must be a number of at least 0",
                field="repetition_price",
            )
        if not (np.asarray(self.once) > 0).all():
            raise InvalidSetting("every domain needs tokens to be read", field="target_tokens")

    def value(self, weights: np.ndarray) -> np.ndarray:
        """(...) the cost at (..., m) weights."""
        width = self.once * HALF_LIFE_EPOCHS
        again = np.maximum(weights - self.once, 0.0)
        return self.price * (again + width * np.expm1(-again / width)).sum(axis=-1)

    def expand(self, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, (m,) first and (m,) second derivatives at (m,) weights; the second jumps at one epoch."""
        width = self.once * HALF_LIFE_EPOCHS
        again = np.maximum(weights - self.once, 0.0)
        lost = -np.expm1(-again / width)
        curvature = np.where(again > 0, (1 - lost) / width, 0.0)
        return float(self.value(weights)), self.price * lost, self.price * curvature


@dataclass(frozen=True)
class TaskMean:
    """A named weighted mean of tasks: a family, or one task alone.

    Attributes:
        name: the family's or the task's.
        weights: (T,) non-negative, summing to 1.
    """

    name: str
    weights: np.ndarray


@dataclass(frozen=True)
class Objective:
    """sum_t w_t f_t(p) + lambda KL(p || prior) + repetition cost, lower better.

    With `families` the first term is the worst of their means instead: max_k sum_t v_kt f_t(p). A solver's tolerances
    are absolute, so everything is counted in a `unit` in which 1 is what mixtures make of a difference.

    Attributes:
        law: T tasks over m domains, in the metrics' own units; a convex one is solved exactly, any other searched.
        task_weights: (T,) w_t, weights that sum to 1 over the unit; without say where there are families.
        prior: (m,) positive, the natural distribution.
        kl_weight: lambda >= 0.
        families: means of which the worst counts, their weights over the unit too.
        repetition: what reading a domain more than once costs.
        unit: what the objective is counted in, in the unit of the metrics.
    """

    law: Fitted
    task_weights: np.ndarray
    prior: np.ndarray
    kl_weight: float
    families: tuple[TaskMean, ...] = ()
    repetition: RepetitionCost | None = None
    unit: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.kl_weight) and self.kl_weight >= 0):
            raise InvalidSetting(
                f"kl_weight is {self.kl_weight}; it must be a number of at least 0", field="kl_weight"
            )

    @property
    def means(self) -> np.ndarray:
        """(F, T) task weights of the means of which the worst counts; without families the one of all tasks."""
        return np.array([family.weights for family in self.families] or [self.task_weights])

    def value(self, weights: np.ndarray) -> float:
        """The objective of a convex law at (m,) weights; 0 log 0 is 0."""
        return self.loss(weights) + float(self.beside_the_law(weights[None])[0])

    def loss(self, weights: np.ndarray) -> float:
        """The part a convex law predicts: the weighted mean over tasks, or the worst family's."""
        return max(self.law.expand(weights, mean).value for mean in self.means)

    def predicted(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the objective of any law at (n, m) mixtures."""
        return self.of_predictions(self.law.mean(weights), weights)

    def of_predictions(self, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(n,) the objective where the law predicts (n, T) at (n, m) mixtures."""
        return (predictions @ self.means.T).max(axis=1) + self.beside_the_law(weights)

    def beside_the_law(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the KL term and the repetition cost at (n, m) mixtures."""
        cost = self.kl_weight * rel_entr(weights, self.prior).sum(axis=1)
        return cost if self.repetition is None else cost + self.repetition.value(weights)

    def local(self, weights: np.ndarray) -> Expansion | None:
        """`expand` for any law, of its curvature upwards alone (`Fitted.local`); None where it has no gradient."""
        law = self.law.local(weights, self.task_weights)
        return None if law is None else self._with_costs(law, weights)

    def smooth(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """sum_t w_t f_t plus the repetition cost to second order at (m,) weights, for given task weights."""
        return self._with_repetition(self.law.expand(weights, task_weights), weights)

    def _with_repetition(self, expansion: Expansion, weights: np.ndarray) -> Expansion:
        return expansion if self.repetition is None else expansion.plus(*self.repetition.expand(weights))

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        """`smooth` plus the KL term; at lambda > 0 the weights must be positive."""
        return self._with_costs(self.law.expand(weights, task_weights), weights)

    def _with_costs(self, law: Expansion, weights: np.ndarray) -> Expansion:
        smooth = self._with_repetition(law, weights)
        if self.kl_weight == 0:
            return smooth
        ratio = np.log(weights / self.prior)
        value = self.kl_weight * float(weights @ ratio)
        return smooth.plus(value, self.kl_weight * (ratio + 1), self.kl_weight / weights)


@dataclass(frozen=True)
class GuardRail:
    """sum_t v_t f_t(p) <= bound: a task or family that must not be predicted worse than `bound`.

    Attributes:
        mean: v, over the unit, and the name a person knows it by.
        bound: the law's constants included.
        unit: what both are counted in, in the metric's unit.
    """

    mean: TaskMean
    bound: float
    unit: float = 1.0


SMALLEST = 1e-290
"""A weight that stands for 0 where its logarithm is taken."""


@dataclass(frozen=True)
class PullBack:
    """E with what a solver asks of it.

    Attributes:
        matrix: (m, n) column-stochastic.
    """

    matrix: np.ndarray

    @cached_property
    def is_identity(self) -> bool:
        """Whether q are the leaves themselves; the columns sum to 1, so a diagonal of ones says it."""
        rows, columns = self.matrix.shape
        return rows == columns and bool((self.matrix.diagonal() == 1).all())

    @cached_property
    def is_disjoint(self) -> bool:
        """Whether every leaf lies under at most one column, so that a diagonal stays diagonal."""
        return self.is_identity or bool(((self.matrix > 0).sum(1) <= 1).all())

    def leaves(self, free: np.ndarray) -> np.ndarray:
        """(n,) q to (m,) positive p; a leaf under no column gets a weight too small to count."""
        return np.maximum(self.expand(free), SMALLEST)

    def expand(self, free: np.ndarray) -> np.ndarray:
        """(n,) q to (m,) p."""
        return free if self.is_identity else self.matrix @ free

    def expansion(self, leaf: Expansion) -> Expansion:
        """An expansion on the leaves as one on q."""
        return leaf if self.is_identity else leaf.through(self.matrix)

    def prior(self, prior: np.ndarray) -> np.ndarray:
        """(n,) pi' with KL(E q || prior) = sum_i q_i log(q_i / pi'_i), where `is_disjoint`; it need not sum to 1."""
        if self.is_identity:
            return prior
        safe = np.where(self.matrix > 0, self.matrix, 1.0)
        return np.exp((self.matrix * np.log(prior[:, None] / safe)).sum(0))


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

    @cached_property
    def system(self) -> LinearSystem:
        """Caps and constraints as matrices on q."""
        return LinearSystem.of(self.space, self.caps, self.constraints)

    @cached_property
    def pull_back(self) -> PullBack:
        """From expansions on the leaves to expansions on q."""
        return PullBack(self.space.matrix)

    @cached_property
    def centre(self) -> np.ndarray:
        """(n,) what is searched at the prior: a virtual domain weighs what its members do."""
        return self.space.collapse(self.objective.prior)

    def excess(self, predictions: np.ndarray) -> np.ndarray:
        """(n,) by how much (n, T) predictions break the worst guard rail; below 0 where they keep all."""
        return self.excesses(predictions).max(axis=0, initial=-np.inf)

    def excesses(self, predictions: np.ndarray) -> np.ndarray:
        """(G, n) by how much (n, T) predictions break each guard rail."""
        rails = [predictions @ guard.mean.weights - guard.bound for guard in self.guard_rails]
        return np.array(rails).reshape(len(rails), len(predictions))

    def allows(self, mixtures: np.ndarray) -> np.ndarray:
        """(n,) which of (n, m) mixtures keep caps, constraints, frozen ratios and guard rails."""
        near = 1e-9
        kept = np.array([self.space.expand(self.space.collapse(row)) for row in mixtures])
        inside = np.abs(kept - mixtures).sum(axis=1) < near
        inside &= (mixtures <= self.caps + near).all(axis=1)
        for share in self.constraints:
            weight = mixtures @ share.row(self.space.leaves)
            inside &= (share.lower - near <= weight) & (weight <= share.upper + near)
        return inside & (self.excess(self.objective.law.mean(mixtures)) <= near)
