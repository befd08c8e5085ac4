"""Where to start inside the guard rails, and what to say where no mixture keeps to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import Infeasible
from mixing.solve.conflicts import INTERIOR, Conflict, face, irreducible, middle
from mixing.solve.convex.certificate import lower_bound
from mixing.solve.convex.interior_point import ConvexProgram, minimize
from mixing.solve.convex.pull_back import PullBack
from mixing.solve.linear_system import LinearSystem
from mixing.solve.problem import GuardRail, MixtureProblem

_MARGIN = 1e-6
_PRICED = 1e-6  # of a multiplier, where those of the guard rails sum to 1


def start_within(
    problem: MixtureProblem, program: ConvexProgram, system: LinearSystem, inside: np.ndarray
) -> np.ndarray:
    """A (n,) q inside the linear constraints and the guard rails: `inside` itself where it is.

    Otherwise as far from where the guard rails are kept best towards `inside` as keeps half of the room there.

    Raises:
        Infeasible: no mixture keeps to the guard rails; the smallest set in conflict is named.
    """
    if not problem.guard_rails or max(_excesses(problem, program, inside)) <= -_MARGIN:
        return inside
    nearest = _nearest(problem, program.pull_back, system, problem.guard_rails, inside)
    best = nearest.free
    if nearest.excess > INTERIOR:
        raise _conflict(problem, _excesses(problem, program, best), nearest.holding)
    room, share = max(_excesses(problem, program, best)), 0.5
    while max(_excesses(problem, program, best + share * (inside - best))) > room / 2 and share > _MARGIN:
        share /= 2
    return best + share * (inside - best)


def _excesses(problem: MixtureProblem, program: ConvexProgram, free: np.ndarray) -> list[float]:
    """By how much q breaks each guard rail."""
    leaves = program.pull_back.leaves(free)
    law = problem.objective.law
    return [law.expand(leaves, guard.mean.weights).value - guard.bound for guard in problem.guard_rails]


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


def _nearest(
    problem: MixtureProblem,
    pull_back: PullBack,
    system: LinearSystem,
    guards: Sequence[GuardRail],
    inside: np.ndarray,
) -> _Nearest:
    """A problem of worst family without an objective: minimise s with f_k(q) - b_k <= s."""
    empty = replace(
        problem.objective,
        task_weights=np.zeros_like(problem.objective.task_weights),
        kl_weight=0.0,
        families=(),
        repetition=None,
    )
    program = ConvexProgram.of(empty, pull_back, system, tuple(guards))
    program = replace(program, epigraph=np.ones(len(guards)))
    point = minimize(program, inside)
    excess = lower_bound(program, point.free, point.multipliers, point.prices)
    rails = point.multipliers[program.convex] > _PRICED
    rows = point.multipliers[program.order] > _PRICED
    holding = [guard.mean.name for guard, priced in zip(guards, rails, strict=True) if priced]
    holding += [name for name, priced in zip(system.inequality_names, rows, strict=True) if priced]
    return _Nearest(point.free, excess, tuple(dict.fromkeys((*holding, *system.equality_names))))


def _conflict(problem: MixtureProblem, excesses: Sequence[float], suspects: Sequence[str]) -> Infeasible:
    """The smallest set of guard rails and linear constraints that conflict.

    Args:
        problem: which no mixture satisfies.
        excesses: by how much each guard rail is broken where the worst is broken least.
        suspects: what holds the mixture there.
    """
    system = LinearSystem.of(problem)
    guards = {guard.mean.name: guard for guard in problem.guard_rails}

    def feasible(names: Sequence[str]) -> bool:
        chosen = system.only(names)
        found = middle(chosen)
        if found is None:
            return False
        rails = [guards[name] for name in names if name in guards]
        if not rails:
            return True
        inside, room = found
        matrix = problem.space.matrix
        if room < INTERIOR:
            held = face(chosen)
            chosen, inside, matrix = (
                chosen.on_face(held.tight, held.kept),
                held.inside[held.kept],
                matrix[:, held.kept],
            )
        return _nearest(problem, PullBack(matrix), chosen, rails, inside).excess <= INTERIOR

    conflict, smallest = irreducible(suspects, (*guards, *system.names), feasible)
    relaxed = {name: excess for name, excess in zip(guards, excesses, strict=True) if excess > INTERIOR}
    return Conflict(conflict, smallest, relaxed).error()
