"""How far a point can be from the optimum, computed from the point and any multipliers, never taken from a solver.

Every term of the problem is convex, so it lies above its tangent at q, and weak duality of what remains, a linear
programme, bounds the minimum from below for any multipliers of the right sign:

    min >= L(q) - g . q - z . h - y . b + min { (g + G^T z + A^T y) . q' : q' in the capped simplex },

with L(q) = F(q) + sum_k z_k (c_k(q) - b_k) over the convex rows, g its gradient, z, y the multipliers of the linear
constraints that couple the q. Those on one q alone (caps) need none: they are in the capped simplex, over which the
minimum is a fractional knapsack.
"""

import numpy as np

from mixing.solve.convex.capped_newton import knapsack
from mixing.solve.convex.interior_point import ConvexProgram

FEASIBLE = 1e-9
"""By how much a point may break a constraint and still count as satisfying it."""


def objective_value(program: ConvexProgram, free: np.ndarray) -> float:
    """The objective at q, with the worst family where there are families."""
    leaves = program.pull_back.leaves(free)
    value = program.objective.expand(leaves, program.task_weights).value
    return value + max(
        (_mean(program, leaves, int(k)) for k in np.flatnonzero(program.epigraph)), default=0.0
    )


def violation(program: ConvexProgram, free: np.ndarray) -> float:
    """By how much q breaks the worst constraint, guard rails included."""
    leaves = program.pull_back.leaves(free)
    guards = [
        _mean(program, leaves, int(k)) - program.bound[program.convex][k]
        for k in np.flatnonzero(program.epigraph == 0)
    ]
    linear = program.forward(free) - program.bound[: program.convex.start]
    return float(np.concatenate([linear, guards, np.abs(program.equality @ free - program.value)]).max())


def lower_bound(
    program: ConvexProgram, free: np.ndarray, multipliers: np.ndarray, prices: np.ndarray
) -> float:
    """The module's bound on the minimum.

    Args:
        program: the problem.
        free: (n,) any q of the simplex.
        multipliers: (a + b + c,) of all rows; negative ones count as 0.
        prices: (1 + e,) of the equalities.
    """
    split, convex = len(program.column), program.convex
    z = np.maximum(multipliers, 0.0)
    shares = z[convex].copy()
    if program.has_level:  # s is free, so the families' multipliers must sum to 1
        families = program.epigraph > 0
        shares[families] /= shares[families].sum()
    leaves = program.pull_back.leaves(free)
    weights = program.task_weights + shares @ program.means
    lagrangian = program.pull_back.expansion(program.objective.expand(leaves, weights))
    coupling = z[split : convex.start]
    reduced = lagrangian.gradient + coupling @ program.coupling + prices[1:] @ program.equality[1:]
    below = (program.coefficient < 0) & (np.arange(split) < split - len(free))
    lowest = z[:split][below]
    reduced = reduced + np.bincount(
        program.column[below], program.coefficient[below] * lowest, minlength=len(free)
    )
    tangent = lagrangian.value - lagrangian.gradient @ free
    constant = (
        shares @ program.bound[convex]
        + coupling @ program.bound[split : convex.start]
        + prices[1:] @ program.value[1:]
        + lowest @ program.bound[:split][below]
    )
    return float(tangent - constant + knapsack(reduced, _upper(program, len(free))))


def certified_gap(
    program: ConvexProgram, free: np.ndarray, multipliers: np.ndarray, prices: np.ndarray
) -> float:
    """Upper bound on the objective at q minus its minimum; infinite for a q outside the constraints."""
    if violation(program, free) > FEASIBLE:
        return float("inf")
    return max(objective_value(program, free) - lower_bound(program, free, multipliers, prices), 0.0)


def _mean(program: ConvexProgram, leaves: np.ndarray, k: int) -> float:
    return program.objective.law.expand(leaves, program.means[k]).value


def _upper(program: ConvexProgram, width: int) -> np.ndarray:
    """(n,) the largest each q may be by the rows on it alone."""
    upper = np.ones(width)
    capped = program.coefficient > 0
    limits = program.bound[: len(program.column)][capped] / program.coefficient[capped]
    np.minimum.at(upper, program.column[capped], limits)
    return upper
