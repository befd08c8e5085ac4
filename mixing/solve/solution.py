"""The answer of a solve, in the words of the problem."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from mixing.capped_simplex import settle
from mixing.solve.problem import MixtureProblem

_ACTIVE = 1e-6

Kind = Literal["cap", "constraint", "pin", "guard_rail", "family"]


@dataclass(frozen=True)
class ActiveConstraint:
    """A constraint the answer leans on.

    Attributes:
        name: the domain of a cap, else the constraint's, the guard rail's or the family's own name.
        kind: what it is; a `family` is one that attains the worst mean.
        bound: the value it holds the answer at.
        price: how much the objective falls per unit by which the bound is relaxed: a cap, an upper end or a
            guard rail raised, a lower end lowered; for a pin, per unit by which its value is raised; for a
            family, per unit by which its own mean falls.
    """

    name: str
    kind: Kind
    bound: float
    price: float


@dataclass(frozen=True)
class Solution:
    """A mixture, and what is known of how good it is.

    Attributes:
        weights: (m,) over the leaves, under their caps.
        value: the objective there, as the law predicts it.
        gap: certified upper bound on value - minimum; infinite where none is known.
        active: the constraints that bind, with their prices, where these are known.
        cap_prices: (m,) fall of the objective per unit of each domain's cap, where it is known; 0 where it does not
            bind.
        evaluations: predictions a search took.
    """

    weights: np.ndarray
    value: float
    gap: float = float("inf")
    active: tuple[ActiveConstraint, ...] = ()
    cap_prices: np.ndarray | None = None
    evaluations: int | None = None

    def in_metric(self, problem: MixtureProblem) -> Self:
        """The answer to a problem that is counted in its units, in those of the metrics."""
        unit = problem.objective.unit
        rails = {rail.mean.name: rail.unit for rail in problem.guard_rails}

        def measured(item: ActiveConstraint) -> ActiveConstraint:
            if item.kind == "family":  # its price is a share of the objective
                return replace(item, bound=item.bound * unit)
            own = rails[item.name] if item.kind == "guard_rail" else 1.0
            return replace(item, bound=item.bound * own, price=item.price * unit / own)

        return replace(
            self,
            value=self.value * unit,
            gap=self.gap * unit,
            active=tuple(map(measured, self.active)),
            cap_prices=None if self.cap_prices is None else self.cap_prices * unit,
        )


@dataclass(frozen=True)
class Prices:
    """The multipliers of a solve.

    Attributes:
        rows: `{(name, is lower end): multiplier}` of the inequalities.
        held: `{name: price}` of what was held with equality.
        families: (F,) in the objective's order; empty where there are none.
        guard_rails: (G,) in the problem's order.
    """

    rows: Mapping[tuple[str, bool], float]
    held: Mapping[str, float]
    families: tuple[float, ...]
    guard_rails: tuple[float, ...]

    def of_row(self, name: str, is_lower: bool) -> float:
        """The price of an inequality, also where its set had no inside and it was held with equality."""
        return max(self.rows.get((name, is_lower), self.held.get(name, 0.0)), 0.0)


def describe(
    problem: MixtureProblem,
    free: np.ndarray,
    gap: float,
    active: tuple[ActiveConstraint, ...],
    value: float | None = None,
) -> Solution:
    """The solution at (n,) q, its weights without rounding; `value` is the objective there, where it is known."""
    weights = settle(problem.pull_back.expand(free), problem.caps)
    value = problem.objective.value(weights) if value is None else value
    prices = {item.name: item.price for item in active if item.kind == "cap"}
    cap_prices = np.array([prices.get(name, 0.0) for name in problem.space.leaves])
    return Solution(weights, value, gap, active, cap_prices)


def binding(problem: MixtureProblem, free: np.ndarray, prices: Prices) -> tuple[ActiveConstraint, ...]:
    """The constraints that bind at (n,) q, with their prices."""
    return (*_linear(problem, free, prices), *_convex(problem, problem.pull_back.expand(free), prices))


def _linear(problem: MixtureProblem, free: np.ndarray, prices: Prices) -> list[ActiveConstraint]:
    system = problem.system
    slack = system.bound - system.inequality @ free
    active = []
    for i, name in enumerate(system.inequality_names):
        bound, price = float(system.bound[i]), prices.of_row(name, bool(system.is_lower[i]))
        if slack[i] <= _ACTIVE * max(abs(bound), _ACTIVE) or price > slack[i] + _ACTIVE:
            kind = "cap" if system.is_cap[i] else "constraint"
            active.append(ActiveConstraint(name, kind, -bound if system.is_lower[i] else bound, price))
    pins = [
        ActiveConstraint(name, "pin", float(value), prices.held.get(name, 0.0))
        for name, value in zip(system.equality_names, system.value, strict=True)
    ]
    return [*active, *pins]


def _convex(problem: MixtureProblem, weights: np.ndarray, prices: Prices) -> list[ActiveConstraint]:
    def mean(task_weights: np.ndarray) -> float:
        return problem.objective.law.expand(weights, task_weights).value

    active = []
    for guard, price in zip(problem.guard_rails, prices.guard_rails, strict=True):
        left = guard.bound - mean(guard.mean.weights)
        if left <= _ACTIVE or price > left + _ACTIVE:
            active.append(ActiveConstraint(guard.mean.name, "guard_rail", guard.bound, float(price)))
    means = [mean(family.weights) for family in problem.objective.families]
    for family, value, price in zip(problem.objective.families, means, prices.families, strict=True):
        if value >= max(means) - _ACTIVE:
            active.append(ActiveConstraint(family.name, "family", value, float(price)))
    return active


# How strongly domains are coupled in a fitted law: what keeping one's ratio costs when another changes.
#
# At the optimum p* of the objective F, let the whole weight of domain a be lost to the others in proportion, or as
# much come to it from them. To first order of the gradient, F's slopes along every other domain's ratio then change
# by
#
#     r_j = d_j . H Delta,   Delta_a = -+p_a,   Delta_k = +-p_k p_a / (1 - p_a) for the others,
#
# with H the Hessian of F and d_j = e_j - p' the direction that gives weight to j and takes it from the others in
# proportion. To keep j's ratio all the same costs what one Newton step along d_j would gain, as far as j's weight and
# its cap let it go. The larger of the two directions counts. The KL term does not couple domains, but it does hold
# them: it is in the curvature d_j . H d_j.

_LEAST = 1e-12
"""A weight below this is none."""


def couplings(problem: MixtureProblem, weights: np.ndarray) -> np.ndarray | None:
    """(m, m) cost, in the metrics' unit, of keeping the column's ratio when the row's whole weight changes.

    Args:
        problem: whose optimum, over domains that are all free, the weights are.
        weights: (m,) p*.

    Returns:
        The costs, 0 on the diagonal; None for a law without a gradient, and for the worst of several families, which
        has no curvature. Of a law that is not convex what bends down counts as straight.
    """
    objective = problem.objective
    inside = np.maximum(weights, _LEAST)
    expansion = None if objective.families else objective.local(inside)
    if expansion is None:
        return None
    diagonal, factors = expansion.diagonal, expansion.factors
    caps = np.minimum(problem.caps, 1.0)
    costs = np.zeros((len(weights), len(weights)))
    for a in np.flatnonzero(weights > _LEAST):
        others = np.where(np.arange(len(weights)) == a, 0.0, inside)
        others /= others.sum()
        change = weights[a] * (others - np.eye(len(weights))[a])
        # H v for v the change and for the others' own proportions, against every d_j = e_j - others at once.
        moved = diagonal * change + (factors @ change) @ factors
        within = diagonal * others + (factors @ others) @ factors
        slope = moved - others @ moved
        curvature = diagonal + np.einsum("rj,rj->j", factors, factors) - 2 * within + others @ within
        rest = expansion.gradient - others @ expansion.gradient
        for sign in (1.0, -1.0):
            now = np.maximum(weights + sign * change, 0.0)
            room = (-now, np.maximum(caps - now, 0.0))
            cost = _gain(rest + sign * slope, curvature, room) - _gain(rest, curvature, room)
            costs[a] = np.maximum(costs[a], np.where(np.arange(len(weights)) == a, 0.0, cost))
    return objective.unit * costs


def _gain(slope: np.ndarray, curvature: np.ndarray, room: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(m,) what a step along each direction gains, of a parabola, within the room there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        step = np.where(curvature > 0, -slope / curvature, -np.sign(slope))
    step = np.clip(np.nan_to_num(step), *room)
    return np.maximum(-(slope * step + curvature * step**2 / 2), 0.0)
