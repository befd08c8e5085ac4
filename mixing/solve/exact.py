"""The exact solve of a mixture problem over a convex law, with a certificate of how exact it is.

Caps and a KL term alone, the most common problem, go to the Newton method of `capped_newton`; everything else, and
what it does not bring within `CERTIFIED`, to the interior point method, and where that ends too early to
CLARABEL through cvxpy. Of several answers the one with the smallest certified gap is returned (`certified_gap`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import Infeasible
from mixing.solve.capped_newton import CappedProblem, minimize_capped
from mixing.solve.conflicts import (
    INTERIOR,
    Conflict,
    deletion_filter,
    face,
    inside_of,
    middle,
    smallest_conflict,
)
from mixing.solve.constraints import LinearSystem
from mixing.solve.interior_point import ConvexProgram, certified_gap, lower_bound, minimize
from mixing.solve.problem import GuardRail, MixtureProblem, PullBack
from mixing.solve.solution import ActiveConstraint, Prices, Solution, binding, describe

CERTIFIED = 1e-9
"""The gap at which a method's answer is taken without asking another."""
_PRECISION = 1e-3  # of what is left open by the interior point method's own criterion, beside the gap
_MARGIN = 1e-6
_PRICED = 1e-6  # of a multiplier, where those of the guard rails sum to 1

Point = tuple[np.ndarray, np.ndarray, np.ndarray]
"""q, the multipliers of a program's rows and the prices of its equalities."""


def solve(problem: MixtureProblem, exact: float = CERTIFIED) -> Solution:
    """The best mixture.

    Args:
        problem: over a convex law.
        exact: the gap at which a method's answer is taken without asking another.

    Raises:
        Infeasible: no mixture satisfies the constraints; the smallest set in conflict is named.
    """
    quick = _solve_capped(problem, exact)
    if quick is not None and quick.gap <= exact:
        return quick
    general = _solve_general(problem, exact)
    return general if quick is None else min(quick, general, key=lambda answer: answer.gap)


def _solve_capped(problem: MixtureProblem, exact: float) -> Solution | None:
    """By the Newton method, where the problem is caps and a KL term over disjoint columns."""
    objective, pull_back = problem.objective, problem.pull_back
    if problem.constraints or problem.guard_rails or objective.families or objective.kl_weight == 0:
        return None
    if not pull_back.is_disjoint:
        return None
    caps, holder = problem.space.pull_back_caps(problem.caps)
    if np.minimum(caps, 1).sum() < 1 or (caps <= 0).any():
        return None
    capped = CappedProblem(
        lambda free: pull_back.expansion(objective.smooth(pull_back.leaves(free), objective.task_weights)),
        pull_back.prior(objective.prior),
        objective.kl_weight,
        caps,
    )
    optimum = minimize_capped(capped, exact)
    held = np.flatnonzero(optimum.weights >= caps)
    members, bounds = holder[held], problem.caps[holder[held]]
    prices = np.maximum(optimum.level - optimum.gradient[held], 0.0) * caps[held] / bounds
    names = problem.space.leaves
    active = tuple(
        ActiveConstraint(names[leaf], "cap", bound, price)
        for leaf, bound, price in zip(members.tolist(), bounds.tolist(), prices.tolist(), strict=True)
    )
    return describe(problem, optimum.weights, optimum.gap, active, optimum.value)


@dataclass(frozen=True)
class _Inside:
    """Linear constraints with an inside, on a face where all of them have none; no law plays a part.

    Attributes:
        system: on the q kept.
        pull_back: the columns kept.
        kept: (n,) the q that can be above 0.
        free: a q strictly inside, of those kept.
    """

    system: LinearSystem
    pull_back: PullBack
    kept: np.ndarray
    free: np.ndarray

    @classmethod
    def of(cls, system: LinearSystem, matrix: np.ndarray, deepest: tuple[np.ndarray, float]) -> "_Inside":
        """Of a system and the q deepest in it, with its room (`middle`)."""
        free, room = deepest
        rows, width = system.inequality.shape
        tight, kept = np.zeros(rows, dtype=bool), np.ones(width, dtype=bool)
        if room < INTERIOR:
            tight, kept, free = face(system)
        return cls(system.on_face(tight, kept), PullBack(matrix[:, kept]), kept, free[kept])


def _solve_general(problem: MixtureProblem, exact: float) -> Solution:
    """By the interior point method, and CLARABEL where that one's gap is too wide."""
    inside = _Inside.of(problem.system, problem.space.matrix, inside_of(problem.system))
    program = ConvexProgram.of(problem.objective, inside.pull_back, inside.system, problem.guard_rails)
    iterate = minimize(program, _start_within(problem, program, inside), tolerance=_PRECISION * exact)
    point = (iterate.free, iterate.multipliers, iterate.prices)
    gap = certified_gap(program, *point)
    if gap > exact and (other := _conic_point(problem, program, inside)) is not None:
        second = certified_gap(program, *other)
        gap, point = (second, other) if second < gap else (gap, point)
    free, multipliers, prices = point
    whole = np.zeros(len(inside.kept))
    whole[inside.kept] = free
    system, families = inside.system, len(problem.objective.families)
    rows = zip(system.inequality_names, system.is_lower.tolist(), strict=True)
    convex = tuple(multipliers[program.convex].tolist())
    priced = Prices(
        dict(zip(rows, multipliers[program.order].tolist(), strict=True)),
        dict(zip(system.equality_names, prices[1:].tolist(), strict=True)),
        convex[:families],
        convex[families:],
    )
    return describe(problem, whole, gap, binding(problem, whole, priced))


def _conic_point(problem: MixtureProblem, program: ConvexProgram, inside: _Inside) -> Point | None:
    """CLARABEL's answer; None where it has none, or where some q cannot be above 0."""
    from mixing.solve.conic import solve_conic  # loads cvxpy, which is hardly ever needed

    answer = solve_conic(problem, inside.system) if inside.kept.all() else None
    if answer is None:
        return None
    multipliers = np.zeros(len(program.bound))
    multipliers[program.order] = answer.multipliers
    multipliers[program.convex] = answer.convex_multipliers
    return answer.free, multipliers, answer.prices


def _start_within(problem: MixtureProblem, program: ConvexProgram, inside: _Inside) -> np.ndarray:
    """A (n,) q inside the linear constraints and the guard rails: that of `inside` itself where it is.

    Otherwise as far from where the guard rails are kept best towards there as keeps half of the room.

    Raises:
        Infeasible: no mixture keeps to the guard rails; the smallest set in conflict is named.
    """

    def excesses(free: np.ndarray) -> list[float]:
        """By how much q breaks each guard rail."""
        leaves, law = program.pull_back.leaves(free), problem.objective.law
        return [law.expand(leaves, guard.mean.weights).value - guard.bound for guard in problem.guard_rails]

    if not problem.guard_rails or max(excesses(inside.free)) <= -_MARGIN:
        return inside.free
    nearest = _nearest(problem, inside, problem.guard_rails)
    best, way = nearest.free, inside.free - nearest.free
    if nearest.excess > INTERIOR:
        raise _conflict(problem, excesses(best), nearest.holding)
    room, share = max(excesses(best)), 0.5
    while max(excesses(best + share * way)) > room / 2 and share > _MARGIN:
        share /= 2
    return best + share * way


@dataclass(frozen=True)
class _Nearest:
    """The (n,) q that breaks the worst guard rail least.

    Attributes:
        free: q.
        excess: a certified lower bound on by how much it breaks it.
        holding: the guard rails and linear constraints whose prices keep it from breaking it less.
    """

    free: np.ndarray
    excess: float
    holding: tuple[str, ...]


def _nearest(problem: MixtureProblem, inside: _Inside, guards: Sequence[GuardRail]) -> _Nearest:
    """A problem of worst family without an objective: minimise s with f_k(q) - b_k <= s."""
    empty = replace(
        problem.objective,
        task_weights=np.zeros_like(problem.objective.task_weights),
        kl_weight=0.0,
        families=(),
        repetition=None,
    )
    program = ConvexProgram.of(empty, inside.pull_back, inside.system, tuple(guards))
    program = replace(program, epigraph=np.ones(len(guards)))
    point = minimize(program, inside.free)
    excess = lower_bound(program, point.free, point.multipliers, point.prices)
    rails = point.multipliers[program.convex] > _PRICED
    rows = point.multipliers[program.order] > _PRICED
    holding = [guard.mean.name for guard, priced in zip(guards, rails, strict=True) if priced]
    holding += [name for name, priced in zip(inside.system.inequality_names, rows, strict=True) if priced]
    return _Nearest(point.free, excess, tuple(dict.fromkeys((*holding, *inside.system.equality_names))))


def _conflict(problem: MixtureProblem, excesses: Sequence[float], suspects: Sequence[str]) -> Infeasible:
    """The smallest set of guard rails and linear constraints that conflict.

    Args:
        problem: which no mixture satisfies.
        excesses: by how much each guard rail is broken where the worst is broken least.
        suspects: what holds the mixture there.
    """
    guards = {guard.mean.name: guard for guard in problem.guard_rails}

    def proof(names: Sequence[str]) -> Collection[str]:
        chosen, rails = problem.system.only(names), [guards[name] for name in names if name in guards]
        deepest = middle(chosen)
        if deepest is None:
            return chosen.names
        if not rails:
            return ()
        nearest = _nearest(problem, _Inside.of(chosen, problem.space.matrix, deepest), rails)
        return names if nearest.excess > INTERIOR else ()

    names = (*guards, *problem.system.names)
    conflict = deletion_filter(suspects if proof(suspects) else names, proof)
    conflict, smallest = smallest_conflict(conflict, names, proof)
    relaxed = {
        name: excess * guard.unit
        for (name, guard), excess in zip(guards.items(), excesses, strict=True)
        if excess > INTERIOR
    }
    return Conflict(conflict, smallest, relaxed).error()
