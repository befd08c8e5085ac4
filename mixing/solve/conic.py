"""Mixture problems as cone programmes for cvxpy, where the law has such a form: the independent second solver.

A law's form is registered with `task_cones`. A new family of laws adds a function there and nothing else.
"""

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import cvxpy as cp
import numpy as np

from mixing.laws.exponential.log_linear import FittedLogLinear
from mixing.solve.constraints import LinearSystem
from mixing.solve.problem import HALF_LIFE_EPOCHS, MixtureProblem, Objective


@singledispatch
def task_cones(law: Any, leaves: cp.Expression, tasks: np.ndarray) -> cp.Expression | None:
    """The predictions of some `tasks` (k,), as an expression of (m,) weights that cvxpy knows to be convex."""
    return None


@task_cones.register
def _(law: FittedLogLinear, leaves: cp.Expression, tasks: np.ndarray) -> cp.Expression:
    return law.constants[tasks] + cp.exp(law.coefficients[tasks] @ leaves)


@dataclass(frozen=True)
class ConicAnswer:
    """What a conic solver returned.

    Attributes:
        free: (n,) q.
        multipliers: (r,) of the linear system's rows.
        convex_multipliers: (F + G,) of the families and the guard rails.
        prices: (1 + e,) of sum q = 1 and of the equalities.
        seconds: the solver's own time, without cvxpy's.
    """

    free: np.ndarray
    multipliers: np.ndarray
    convex_multipliers: np.ndarray
    prices: np.ndarray
    seconds: float


def solve_conic(
    problem: MixtureProblem, system: LinearSystem, solver: str = cp.CLARABEL
) -> ConicAnswer | None:
    """Solve through cvxpy; None where the law has no conic form or the solver gives no answer."""
    objective, space = problem.objective, problem.space
    means = [family.weights for family in objective.families]
    means += [guard.mean.weights for guard in problem.guard_rails]
    weights = np.zeros_like(objective.task_weights) if objective.families else objective.task_weights
    # Tasks of weight 0 would only add cones.
    counted = np.flatnonzero(np.array([weights, *means]).any(axis=0))
    reached = space.matrix.any(axis=1)
    free = cp.Variable(len(space.free), nonneg=True)
    leaves = space.matrix @ free
    tasks = task_cones(objective.law, leaves, counted)
    if tasks is None:
        return None
    cost: Any = weights[counted] @ tasks if weights.any() else 0
    if objective.kl_weight > 0:
        kept = leaves[np.flatnonzero(reached)]
        cost = cost + objective.kl_weight * cp.sum(cp.rel_entr(kept, objective.prior[reached]))
    level = cp.Variable()
    if objective.families:
        cost = cost + level
    total = cp.sum(free) == 1
    below = [system.inequality @ free <= system.bound] if len(system.bound) else []
    equal = [system.equality @ free == system.value] if len(system.value) else []
    bounds = [level] * len(objective.families) + [guard.bound for guard in problem.guard_rails]
    convex = [mean[counted] @ tasks <= bound for mean, bound in zip(means, bounds, strict=True)]
    repeated, extra = _repetition(objective, leaves)
    constraints = [total, *below, *equal, *convex, *extra]
    question = cp.Problem(cp.Minimize(cost + repeated), constraints)
    try:
        question.solve(solver=solver)
    except cp.SolverError:
        return None
    if free.value is None:
        return None
    mixture = np.maximum(np.asarray(free.value), 1e-15)
    return ConicAnswer(
        free=mixture / mixture.sum(),
        multipliers=_duals(below),
        convex_multipliers=_duals(convex),
        prices=_duals([total, *equal]),
        seconds=float(question.solver_stats.solve_time or 0.0),
    )


def _repetition(objective: Objective, leaves: cp.Expression) -> tuple[Any, list[Any]]:
    """The cost as a function of the weight above one epoch, x >= p - u: x - u R* + u R* exp(-x / (u R*))."""
    if objective.repetition is None:
        return 0, []
    width = objective.repetition.once * HALF_LIFE_EPOCHS
    again = cp.Variable(len(width), nonneg=True)
    lost = cp.sum(again - width + cp.multiply(width, cp.exp(cp.multiply(-1 / width, again))))
    return objective.repetition.price * lost, [again >= leaves - objective.repetition.once]


def _duals(constraints: list[Any]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.atleast_1d(item.dual_value) for item in constraints)])
