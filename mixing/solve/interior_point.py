"""A primal-dual interior point method for one convex mixture problem with everything it may carry.

    minimise   F(q) [+ s]
    subject to c_k(q) - sigma_k s <= b_k,  G q <= h,  A q = b,  sum q = 1,  q >= 0

F is the objective, c_k are weighted means of tasks (guard rails with sigma = 0; with sigma = 1 the families, of which
s is the worst). The Hessian of the Lagrangian is diag + U^T U with few rows in U. Rows that touch one q alone (caps,
pins, minimum weights, q >= 0) add to the diagonal; all else that couples the q goes beside U into a small system,
so an iteration costs O(n k^2 + k^3) with k tasks and coupling constraints, not O(n^3). Primal and dual steps as
in Boyd and Vandenberghe, Convex Optimization, section 11.7; the start satisfies the linear constraints strictly,
the c_k may begin outside their bounds.
"""

from dataclasses import dataclass

import numpy as np

from mixing.laws.regression import Expansion
from mixing.solve.capped_newton import knapsack
from mixing.solve.constraints import LinearSystem
from mixing.solve.problem import GuardRail, Objective, PullBack

_CENTERING = 0.1  # each step aims at a tenth of the current complementarity
_TO_BOUNDARY = 0.99
_ARMIJO = 0.01
_BACKTRACKS = 30


@dataclass(frozen=True)
class ConvexProgram:
    """The problem of the module's docstring, with rows (a) on one q each, (b) coupling and linear, (c) convex.

    Attributes:
        objective: F, its families aside.
        pull_back: E.
        task_weights: (T,) the tasks in F; zeros where families stand for them.
        column: (a,) the q that a row touches; `coefficient` (a,) by how much. The last n are q >= 0.
        coupling: (b, n).
        means: (c, T) task weights of the convex rows.
        bound: (a + b + c,).
        epigraph: (c,) sigma_k, 1 or 0.
        equality: (1 + e, n), sum q first; `value` (1 + e,).
        order: where each row of the linear system went among the first a + b.
    """

    objective: Objective
    pull_back: PullBack
    task_weights: np.ndarray
    column: np.ndarray
    coefficient: np.ndarray
    coupling: np.ndarray
    means: np.ndarray
    bound: np.ndarray
    epigraph: np.ndarray
    equality: np.ndarray
    value: np.ndarray
    order: np.ndarray

    @classmethod
    def of(
        cls,
        objective: Objective,
        pull_back: PullBack,
        system: LinearSystem,
        guard_rails: tuple[GuardRail, ...] = (),
    ) -> "ConvexProgram":
        """Sort the rows of a problem by how they enter the linear algebra."""
        width = pull_back.matrix.shape[1]
        alone = (system.inequality != 0).sum(1) == 1
        single, coupling = np.flatnonzero(alone), np.flatnonzero(~alone)
        column = (system.inequality[single] != 0).argmax(1)
        order = np.empty(len(alone), dtype=int)
        order[single] = np.arange(len(single))
        order[coupling] = np.arange(len(coupling)) + len(single) + width
        means = [family.weights for family in objective.families] + [g.mean.weights for g in guard_rails]
        tasks = len(objective.task_weights)
        return cls(
            objective=objective,
            pull_back=pull_back,
            task_weights=np.zeros(tasks) if objective.families else objective.task_weights,
            column=np.concatenate([column, np.arange(width)]),
            coefficient=np.concatenate([system.inequality[single, column], np.full(width, -1.0)]),
            coupling=system.inequality[coupling],
            means=np.array(means).reshape(len(means), tasks),
            bound=np.concatenate(
                [
                    system.bound[single],
                    np.zeros(width),
                    system.bound[coupling],
                    np.zeros(len(objective.families)),
                    [guard.bound for guard in guard_rails],
                ]
            ),
            epigraph=np.repeat([1.0, 0.0], [len(objective.families), len(guard_rails)]),
            equality=np.concatenate([np.ones((1, width)), system.equality]),
            value=np.concatenate([[1.0], system.value]),
            order=order,
        )

    @property
    def has_level(self) -> bool:
        """Whether there is an s."""
        return bool(self.epigraph.any())

    @property
    def convex(self) -> slice:
        """The rows (c) among all."""
        return slice(len(self.bound) - len(self.means), len(self.bound))

    def values(self, free: np.ndarray) -> np.ndarray:
        """(c,) left sides of the convex rows, s aside."""
        leaves = self.pull_back.leaves(free)
        return np.array([self.objective.law.expand(leaves, mean).value for mean in self.means])

    def forward(self, free: np.ndarray) -> np.ndarray:
        """(a + b,) left sides of the linear rows."""
        return np.concatenate([self.coefficient * free[self.column], self.coupling @ free])

    def backward(self, multipliers: np.ndarray) -> np.ndarray:
        """(n,) the linear rows' transpose times (a + b,) multipliers."""
        split = len(self.column)
        alone = np.bincount(
            self.column, self.coefficient * multipliers[:split], minlength=self.equality.shape[1]
        )
        return alone + multipliers[split:] @ self.coupling


@dataclass(frozen=True)
class Iterate:
    """A primal-dual point: q, s, slack and multipliers of all rows, prices of the equalities."""

    free: np.ndarray
    level: float
    slack: np.ndarray
    multipliers: np.ndarray
    prices: np.ndarray

    def moved(self, step: "Iterate", length: float) -> "Iterate":
        """This point plus `length` times a step."""
        return Iterate(
            self.free + length * step.free,
            self.level + length * step.level,
            self.slack + length * step.slack,
            self.multipliers + length * step.multipliers,
            self.prices + length * step.prices,
        )


@dataclass(frozen=True)
class _Evaluation:
    """The program at an iterate: the Lagrangian to second order, the convex rows, and what is off."""

    at: Iterate
    lagrangian: Expansion
    jacobian: np.ndarray
    dual: np.ndarray
    level_dual: float
    primal: np.ndarray
    equal: np.ndarray

    @classmethod
    def of(cls, program: ConvexProgram, at: Iterate) -> "_Evaluation":
        leaves = program.pull_back.leaves(at.free)
        convex = at.multipliers[program.convex]
        weights = program.task_weights + convex @ program.means
        lagrangian = program.pull_back.expansion(program.objective.expand(leaves, weights))
        rows = [
            program.pull_back.expansion(program.objective.law.expand(leaves, mean)) for mean in program.means
        ]
        jacobian = np.array([row.gradient for row in rows]).reshape(len(rows), len(at.free))
        values = np.array([row.value for row in rows]) - program.epigraph * at.level
        linear = at.multipliers[: program.convex.start]
        return cls(
            at=at,
            lagrangian=lagrangian,
            jacobian=jacobian,
            dual=lagrangian.gradient + program.backward(linear) + at.prices @ program.equality,
            level_dual=float(program.has_level - convex @ program.epigraph),
            primal=np.concatenate([program.forward(at.free), values]) + at.slack - program.bound,
            equal=program.equality @ at.free - program.value,
        )

    def off(self, target: float) -> np.ndarray:
        """Everything that is 0 on the central path at `target`."""
        complementarity = self.at.slack * self.at.multipliers - target
        return np.concatenate([self.dual, [self.level_dual], self.primal, self.equal, complementarity])


def minimize(
    program: ConvexProgram, start: np.ndarray, tolerance: float = 1e-12, iterations: int = 500
) -> Iterate:
    """From a (n,) q strictly inside the linear constraints to complementarity and residuals below `tolerance`."""
    here = _Evaluation.of(program, _start(program, start))
    for _ in range(iterations):
        gap = float((here.at.slack * here.at.multipliers).mean())
        # Where rounding keeps the residuals up, slacks that went on to 0 would gain nothing.
        if gap < tolerance and (gap < 1e-9 * tolerance or np.abs(here.off(gap)).max() < 10 * tolerance):
            break
        target = _CENTERING * gap
        moved = _advance(program, here, _newton_step(program, here, target), target)
        if moved is None:
            break
        here = moved
    return here.at


def _start(program: ConvexProgram, free: np.ndarray) -> Iterate:
    values = program.values(free)
    level = float(values[program.epigraph > 0].max() + 0.1) if program.has_level else 0.0
    left = np.concatenate([program.forward(free), values - program.epigraph * level])
    slack = np.maximum(program.bound - left, 1e-12)
    slack[program.convex] = np.maximum(slack[program.convex], 1e-2)
    multipliers = 0.1 / np.maximum(slack, 1e-3)
    if program.has_level:
        multipliers[program.convex] = np.where(
            program.epigraph > 0, 1 / program.epigraph.sum(), multipliers[program.convex]
        )
    return Iterate(free, level, slack, multipliers, np.zeros(len(program.value)))


def _newton_step(program: ConvexProgram, here: _Evaluation, target: float) -> Iterate:
    """Eliminate q through the diagonal, then solve the small system of everything that couples the q."""
    at, split, width = here.at, len(program.column), len(here.at.free)
    ratio = at.multipliers / at.slack
    pushed = target / at.slack - at.multipliers + ratio * here.primal
    diagonal = here.lagrangian.diagonal + np.bincount(
        program.column, program.coefficient**2 * ratio[:split], minlength=width
    )
    pull = np.bincount(program.column, program.coefficient * pushed[:split], minlength=width)
    factors = here.lagrangian.factors
    if len(factors) > width:
        factors = np.linalg.qr(factors, mode="r")
    rows = np.concatenate([factors, program.coupling, here.jacobian, program.equality])
    rank, coupled = len(factors), len(at.slack) - split
    shift = np.concatenate([np.ones(rank), 1 / ratio[split:], np.zeros(len(program.value))])
    right = np.concatenate([np.zeros(rank), -pushed[split:] / ratio[split:], -here.equal])
    first = -(here.dual + pull)
    scaled = rows / diagonal
    small = scaled @ rows.T
    small.flat[:: len(small) + 1] += shift
    sides = scaled @ first - right
    level, solved = _solve_small(program, here, small, sides, rank)
    free = (first - solved @ rows) / diagonal
    moved = np.concatenate([program.forward(free), here.jacobian @ free - program.epigraph * level])
    multipliers = np.concatenate(
        [pushed[:split] + ratio[:split] * moved[:split], solved[rank : rank + coupled]]
    )
    return Iterate(free, level, -here.primal - moved, multipliers, solved[rank + coupled :])


def _solve_small(
    program: ConvexProgram, here: _Evaluation, small: np.ndarray, sides: np.ndarray, rank: int
) -> tuple[float, np.ndarray]:
    """The small system, bordered by s where there is one."""
    if not program.has_level:
        return 0.0, _solved(small, sides)
    border = np.zeros(len(small))
    first = rank + len(program.coupling)
    border[first : first + len(program.epigraph)] = program.epigraph
    bordered = np.block([[small, border[:, None]], [border[None], np.zeros((1, 1))]])
    solved = _solved(bordered, np.append(sides, here.level_dual))
    return float(solved[-1]), solved[:-1]


def _solved(matrix: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The solution, or where constraints lean on each other to the last bit the shortest of the nearest ones."""
    try:
        return np.linalg.solve(matrix, side)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, side, rcond=None)[0]


def _advance(program: ConvexProgram, here: _Evaluation, step: Iterate, target: float) -> _Evaluation | None:
    """The longest step that stays inside and reduces what is off; None where none does."""
    length = min(_to_boundary(here.at.slack, step.slack), _to_boundary(here.at.multipliers, step.multipliers))
    before = float(np.linalg.norm(here.off(target)))
    for _ in range(_BACKTRACKS):
        trial = _Evaluation.of(program, here.at.moved(step, length))
        after = float(np.linalg.norm(trial.off(target)))
        # At the limit of rounding no step reduces the residual any more: staying near it is enough.
        if after <= max((1 - _ARMIJO * length) * before, 1e-13):
            return trial
        length /= 2
    return None


def _to_boundary(values: np.ndarray, step: np.ndarray) -> float:
    """The largest length up to 1 that keeps positive values positive."""
    falling = step < 0
    if not falling.any():
        return 1.0
    return min(1.0, _TO_BOUNDARY * float((-values[falling] / step[falling]).min()))


FEASIBLE = 1e-9
"""By how much a point may break a constraint and still count as satisfying it."""


def objective_value(program: ConvexProgram, free: np.ndarray) -> float:
    """The objective at q, with the worst family where there are families."""
    value = program.objective.expand(program.pull_back.leaves(free), program.task_weights).value
    return value + (program.values(free)[program.epigraph > 0].max() if program.has_level else 0.0)


def violation(program: ConvexProgram, free: np.ndarray) -> float:
    """By how much q breaks the worst constraint, guard rails included."""
    guards = (program.values(free) - program.bound[program.convex])[program.epigraph == 0]
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


def _upper(program: ConvexProgram, width: int) -> np.ndarray:
    """(n,) the largest each q may be by the rows on it alone."""
    upper = np.ones(width)
    capped = program.coefficient > 0
    limits = program.bound[: len(program.column)][capped] / program.coefficient[capped]
    np.minimum.at(upper, program.column[capped], limits)
    return upper
