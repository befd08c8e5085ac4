"""The exact solve of a mixture problem over a convex law, with a certificate of how exact it is.

Caps and a KL term alone, the most common problem, go to the Newton method of `capped_newton`; everything else, and
what it does not bring within `CERTIFIED`, to the interior point method, and where that ends too early to
CLARABEL through cvxpy. Of several answers the one with the smallest certified gap is returned (`certificate`).
"""

from dataclasses import dataclass

import numpy as np

from mixing.solve.conflicts import INTERIOR, Face, face, linear_conflict, middle
from mixing.solve.convex.capped_newton import CappedProblem, minimize_capped
from mixing.solve.convex.certificate import certified_gap
from mixing.solve.convex.conic import solve_conic
from mixing.solve.convex.guard_rails import start_within
from mixing.solve.convex.interior_point import ConvexProgram, minimize
from mixing.solve.convex.pull_back import PullBack
from mixing.solve.linear_system import LinearSystem
from mixing.solve.problem import MixtureProblem
from mixing.solve.solution import ActiveConstraint, Prices, Solution, binding, describe

CERTIFIED = 1e-9
"""The gap at which a method's answer is taken without asking another."""


def solve(problem: MixtureProblem) -> Solution:
    """The best mixture.

    Raises:
        Infeasible: no mixture satisfies the constraints; the smallest set in conflict is named.
    """
    quick = _solve_capped(problem)
    if quick is not None and quick.optimality_gap <= CERTIFIED:
        return quick
    general = _solve_general(problem, _prepare(problem))
    return general if quick is None else min(quick, general, key=lambda answer: answer.optimality_gap)


@dataclass(frozen=True)
class _Prepared:
    """What does not depend on the law: the linear constraints with an inside, on a face where they have none.

    Attributes:
        system: on the q kept.
        pull_back: the columns kept.
        kept: (n,) the q that can be above 0.
        inside: a q strictly inside.
    """

    system: LinearSystem
    pull_back: PullBack
    kept: np.ndarray
    inside: np.ndarray


def _prepare(problem: MixtureProblem) -> _Prepared:
    system = LinearSystem.of(problem)
    found = middle(system)
    if found is None:
        raise linear_conflict(system).error()
    inside, room = found
    held = Face.whole(system, inside) if room >= INTERIOR else face(system)
    return _Prepared(
        system.on_face(held.tight, held.kept),
        PullBack(problem.space.matrix[:, held.kept]),
        held.kept,
        held.inside[held.kept],
    )


def _solve_capped(problem: MixtureProblem) -> Solution | None:
    """By the Newton method, where the problem is caps and a KL term over disjoint columns."""
    objective, pull_back = problem.objective, PullBack(problem.space.matrix)
    if problem.constraints or problem.guard_rails or objective.families or objective.kl_weight == 0:
        return None
    if not pull_back.is_disjoint:
        return None
    caps, holder = pull_back.caps(problem.caps)
    if np.minimum(caps, 1).sum() < 1 or (caps <= 0).any():
        return None
    capped = CappedProblem(
        lambda free: pull_back.expansion(objective.smooth(pull_back.leaves(free), objective.task_weights)),
        pull_back.prior(objective.prior),
        objective.kl_weight,
        caps,
    )
    found = minimize_capped(capped)
    held = np.flatnonzero(found.weights >= caps)
    members, bounds = holder[held], problem.caps[holder[held]]
    prices = np.maximum(found.level - found.gradient[held], 0.0) * caps[held] / bounds
    names = problem.space.leaves
    active = tuple(
        ActiveConstraint(names[leaf], "cap", bound, price)
        for leaf, bound, price in zip(members.tolist(), bounds.tolist(), prices.tolist(), strict=True)
    )
    return describe(problem, found.weights, found.gap, active, found.value)


def _solve_general(problem: MixtureProblem, prepared: _Prepared) -> Solution:
    """By the interior point method, and CLARABEL where that one's gap is too wide."""
    objective, system = problem.objective, prepared.system
    program = ConvexProgram.of(objective, prepared.pull_back, system, problem.guard_rails)
    start = start_within(problem, program, system, prepared.inside)
    point = minimize(program, start)
    free, multipliers, prices = point.free, point.multipliers, point.prices
    gap = certified_gap(program, free, multipliers, prices)
    if gap > CERTIFIED:
        other = _second_opinion(problem, prepared, program)
        if other is not None and other[0] < gap:
            gap, free, multipliers, prices = other
    split = program.convex.start
    linear = multipliers[program.order]
    rows = {
        (name, bool(lower)): float(price)
        for name, lower, price in zip(system.inequality_names, system.is_lower, linear, strict=True)
    }
    held = dict(zip(system.equality_names, map(float, prices[1:]), strict=True))
    families = len(objective.families)
    convex = multipliers[split:]
    whole = np.zeros(len(prepared.kept))
    whole[prepared.kept] = free
    found = Prices(rows, held, tuple(convex[:families]), tuple(convex[families:]))
    return describe(problem, whole, gap, binding(problem, whole, found))


def _second_opinion(
    problem: MixtureProblem, prepared: _Prepared, program: ConvexProgram
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray] | None:
    """CLARABEL's certified gap, q, multipliers and prices."""
    if not prepared.kept.all():
        return None
    answer = solve_conic(problem, prepared.system)
    if answer is None:
        return None
    multipliers = np.zeros(len(program.bound))
    multipliers[program.order] = answer.multipliers
    multipliers[program.convex] = np.concatenate([answer.family_multipliers, answer.guard_multipliers])
    gap = certified_gap(program, answer.free, multipliers, answer.prices)
    return gap, answer.free, multipliers, answer.prices
