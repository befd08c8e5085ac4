"""The exact solve of a mixture problem, with a certificate of how exact it is.

CLARABEL solves the problem through cvxpy; our interior point method then solves it from the middle of the
feasible set to a complementarity of 1e-12, which a conic solver's tolerances do not reach, and of the two
the one with the smaller certified gap is returned. The gap is computed here from the point alone, never
taken from a solver: for convex F and any multipliers z >= 0 and y, weak duality of the linearised
problem gives

    F(q) - min F <= g . q + z . h + y . b - min_i (g + G^T z + A^T y)_i,     g = grad F(q)

over {q >= 0, sum q = 1, G q <= h, A q = b}, an upper bound on what is lost by stopping at q.
"""

from dataclasses import dataclass

import cvxpy as cp
import numpy as np

from mixing.optimization.feasibility import INTERIOR, lowest_linear, middle
from mixing.optimization.interior_point import ConvexPrograms, Point, minimize
from mixing.optimization.problem import LinearSystem, MixtureProblem, linear_system
from mixing.sampling.capped_simplex import settle

_ACTIVE = 1e-6
_EXACT_ITERATIONS = 400
"""Most problems need 20; one whose optimum all but drops a domain was seen to need 150."""


@dataclass(frozen=True)
class ActiveConstraint:
    """A constraint the answer leans on.

    Attributes:
        name: the domain of a cap, else the constraint's own name.
        is_cap: whether it is a domain's cap.
        bound: the value it holds the answer at.
        price: how much the objective (BPB) falls per unit by which the bound is relaxed; for a pin,
            how much it falls per unit by which its value is raised.
    """

    name: str
    is_cap: bool
    bound: float
    price: float


@dataclass(frozen=True)
class Solution:
    """The optimum of a mixture problem.

    Attributes:
        weights: (m,) mixture over the leaves, under its caps to the last bit.
        free_weights: (n,) q.
        value: the objective there.
        optimality_gap: certified upper bound on value - minimum.
        active: the constraints that bind.
        cap_prices: (m,) fall of the objective per unit of each domain's cap; 0 where it does not bind.
    """

    weights: np.ndarray
    free_weights: np.ndarray
    value: float
    optimality_gap: float
    active: tuple[ActiveConstraint, ...]
    cap_prices: np.ndarray


def solve(problem: MixtureProblem) -> Solution:
    """The best mixture.

    Raises:
        Infeasible: no mixture satisfies the constraints; those in conflict are named.
    """
    system = linear_system(problem)
    centre, room = middle(system, len(problem.space.free))
    if room < INTERIOR:
        return _without_inside(problem, system, centre)
    free, multipliers, prices = _conic(problem, system)
    candidates = [(free, multipliers, prices)] if free is not None else []
    point = minimize(_programs(problem, system), centre, iterations=_EXACT_ITERATIONS)
    candidates.append(_single(point, len(system.bound)))
    certified = [(_certified_gap(problem, system, *candidate), candidate) for candidate in candidates]
    gap, (free, multipliers, prices) = min(certified, key=lambda pair: pair[0])
    return _solution(problem, system, free, gap, multipliers, prices)


def solve_many(problem: MixtureProblem, coefficients: np.ndarray) -> np.ndarray:
    """(B, m) optima of the same problem under (B, T, m) other laws, by our interior point method alone."""
    system = linear_system(problem)
    centre, room = middle(system, len(problem.space.free))
    if room < INTERIOR:
        return np.tile(problem.space.expand(centre), (len(coefficients), 1))
    point = minimize(_programs(problem, system, coefficients), centre, tolerance=1e-9)
    return problem.space.expand(point.free)


def _programs(
    problem: MixtureProblem, system: LinearSystem, coefficients: np.ndarray | None = None
) -> ConvexPrograms:
    objective = problem.objective
    laws = objective.coefficients[None] if coefficients is None else coefficients
    return ConvexPrograms(
        laws, objective.task_weights, objective.prior, objective.kl_weight, problem.space.matrix, system
    )


def _single(point: Point, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return point.free[0], point.multipliers[0, :rows], point.prices[0, 1:]


def _conic(problem: MixtureProblem, system: LinearSystem) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """CLARABEL's q and multipliers; None for q where it gives none."""
    objective, space = problem.objective, problem.space
    reached = space.matrix.any(axis=1)
    free = cp.Variable(len(space.free), nonneg=True)
    leaves = space.matrix[reached] @ free
    # Tasks of weight 0 would only add cones; they do not enter the objective.
    counted = objective.task_weights > 0
    pulled = objective.coefficients[counted] @ space.matrix
    cost = objective.task_weights[counted] @ cp.exp(pulled @ free)
    if objective.kl_weight > 0:
        cost = cost + objective.kl_weight * cp.sum(cp.rel_entr(leaves, objective.prior[reached]))
    below = system.inequality @ free <= system.bound if len(system.bound) else None
    equal = system.equality @ free == system.value if len(system.value) else None
    constraints = [cp.sum(free) == 1, *(item for item in (below, equal) if item is not None)]
    question = cp.Problem(cp.Minimize(cost), constraints)
    try:
        question.solve(solver=cp.CLARABEL)
    except cp.SolverError:
        return None, np.zeros(len(system.bound)), np.zeros(len(system.value))
    if free.value is None:
        return None, np.zeros(len(system.bound)), np.zeros(len(system.value))
    found = np.maximum(np.asarray(free.value), 1e-15)
    multipliers = np.zeros(0) if below is None else np.maximum(np.atleast_1d(below.dual_value), 0)
    prices = np.zeros(0) if equal is None else np.atleast_1d(equal.dual_value)
    return found / found.sum(), multipliers, prices


def _certified_gap(
    problem: MixtureProblem,
    system: LinearSystem,
    free: np.ndarray,
    multipliers: np.ndarray,
    prices: np.ndarray,
) -> float:
    """The module's bound; infinite for a q outside the constraints by more than 1e-9."""
    outside = np.concatenate(
        [system.inequality @ free - system.bound, np.abs(system.equality @ free - system.value), -free]
    )
    if outside.max() > 1e-9 or abs(free.sum() - 1) > 1e-9:
        return float("inf")
    gradient = _free_gradient(problem, free)
    reduced = gradient + multipliers @ system.inequality + prices @ system.equality
    bound = gradient @ free + multipliers @ system.bound + prices @ system.value - reduced.min()
    return float(max(bound, 0.0))


def _free_gradient(problem: MixtureProblem, free: np.ndarray) -> np.ndarray:
    """(n,) gradient on q; a leaf under no column has weight 0 and no say."""
    leaves = problem.space.expand(free)
    safe = np.where(leaves > 0, leaves, problem.objective.prior)
    return problem.objective.gradient(safe) @ problem.space.matrix


def _without_inside(problem: MixtureProblem, system: LinearSystem, centre: np.ndarray) -> Solution:
    """Constraints so tight that the feasible set is a point or a face: a conic solve, bounded by an LP."""
    found, multipliers, prices = _conic(problem, system)
    if found is None or _outside(system, found) > 1e-7:
        found, multipliers, prices = centre, np.zeros(len(system.bound)), np.zeros(len(system.value))
    gradient = _free_gradient(problem, found)
    gap = max(0.0, float(gradient @ found) - lowest_linear(gradient, system))
    return _solution(problem, system, found, gap, multipliers, prices)


def _outside(system: LinearSystem, free: np.ndarray) -> float:
    return float(np.max(system.inequality @ free - system.bound, initial=0.0))


def _solution(
    problem: MixtureProblem,
    system: LinearSystem,
    free: np.ndarray,
    gap: float,
    multipliers: np.ndarray,
    prices: np.ndarray,
) -> Solution:
    weights = settle(problem.space.expand(free), problem.caps)
    slack = system.bound - system.inequality @ free
    active = [
        ActiveConstraint(
            system.inequality_names[i], bool(system.is_cap[i]), float(system.bound[i]), float(multipliers[i])
        )
        for i in np.flatnonzero(slack <= _ACTIVE * np.maximum(np.abs(system.bound), _ACTIVE))
    ]
    active += [
        ActiveConstraint(name, False, float(value), float(price))
        for name, value, price in zip(system.equality_names, system.value, prices, strict=True)
    ]
    cap_prices = dict.fromkeys(problem.space.leaves, 0.0)
    cap_prices |= {item.name: item.price for item in active if item.is_cap}
    return Solution(
        weights=weights,
        free_weights=free,
        value=problem.objective.value(weights),
        optimality_gap=gap,
        active=tuple(active),
        cap_prices=np.array(list(cap_prices.values())),
    )
