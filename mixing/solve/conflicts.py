"""Whether any mixture satisfies the linear constraints, and where the inside of their set is.

Where none does: the smallest set in conflict, and the least change that ends it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.optimize import linprog

from mixing.errors import Infeasible
from mixing.solve.constraints import LinearSystem

INTERIOR = 1e-9
"""Least slack of a set that has an inside; below it the set is a point or a face."""


def is_feasible(system: LinearSystem) -> bool:
    """Whether some q satisfies the constraints, to `INTERIOR`."""
    return middle(system) is not None


def middle(system: LinearSystem) -> tuple[np.ndarray, float] | None:
    """The (n,) q whose smallest slack over all constraints is largest, and that slack; None where there is none."""
    rows, width = system.inequality.shape
    inequality = np.block([[system.inequality, np.ones((rows, 1))], [-np.eye(width), np.ones((width, 1))]])
    equality = np.block(
        [[np.ones((1, width)), np.zeros((1, 1))], [system.equality, np.zeros((len(system.value), 1))]]
    )
    cost = np.zeros(width + 1)
    cost[-1] = -1
    solved = linprog(
        cost,
        inequality,
        np.concatenate([system.bound, np.zeros(width)]),
        equality,
        np.concatenate([[1.0], system.value]),
        [(0, 1)] * width + [(None, 1)],
    )
    if solved.x is None or solved.x[-1] < -INTERIOR:
        return None
    return np.asarray(solved.x[:-1]), float(max(solved.x[-1], 0))


def inside_of(system: LinearSystem) -> tuple[np.ndarray, float]:
    """`middle` of a system that has to have one.

    Raises:
        Infeasible: no q satisfies the constraints; the smallest set in conflict is named.
    """
    if (deepest := middle(system)) is None:
        raise linear_conflict(system).error()
    return deepest


def face(system: LinearSystem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a set that is not empty lies: the smallest face of the simplex, and the rows that hold it there.

    One linear programme over the cone of the set, (q, tau) with tau >= 1: maximise sum_i t_i with 0 <= t_i <= 1
    and slack_i(q, tau) >= t_i. In a cone every slack that can be positive can be 1, so t_i is 0 or 1.

    Returns:
        (r,) the rows that hold with equality everywhere in the set, (n,) the q that are not 0 everywhere in it, and
        (n,) a q that satisfies every other row strictly.
    """
    rows, width = system.inequality.shape
    count = rows + width
    slack = np.block(
        [
            [system.inequality, -system.bound[:, None]],
            [-np.eye(width), np.zeros((width, 1))],
        ]
    )
    equality = np.block([[np.ones((1, width)), -np.ones((1, 1))], [system.equality, -system.value[:, None]]])
    solved = linprog(
        np.concatenate([np.zeros(width + 1), -np.ones(count)]),
        np.concatenate([slack, np.eye(count)], axis=1),
        np.zeros(count),
        np.concatenate([equality, np.zeros((len(equality), count))], axis=1),
        np.zeros(len(equality)),
        [(0, None)] * width + [(1, None)] + [(0, 1)] * count,
    )
    positive = solved.x[width + 1 :] > 0.5
    return ~positive[:rows], positive[rows:], solved.x[:width] / solved.x[width]


_ENUMERATED = 500
"""Most sets tried to find one smaller than the deletion filter's."""

_LISTED = 10  # constraints spelled out in a message

Feasible = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Conflict:
    """Constraints that cannot hold together.

    Attributes:
        constraints: their names; without any one of them the others can hold.
        is_smallest: whether every smaller set of constraints was found to be satisfiable.
        relaxation: `{name: amount}` the least total change of bounds after which some mixture satisfies
            all constraints.
    """

    constraints: tuple[str, ...]
    is_smallest: bool
    relaxation: dict[str, float]

    def error(self) -> Infeasible:
        """The error that tells a person."""
        amounts = [f"{name!r} by {amount:.4g}" for name, amount in sorted(self.relaxation.items())]
        together = " together" if len(self.constraints) > 1 else ""
        return Infeasible(
            f"no mixture satisfies {_listed([repr(name) for name in self.constraints])}{together}; the least"
            f" change that makes one possible relaxes {_listed(amounts)}",
            field="constraints",
            names=self.constraints,
        )


def linear_conflict(system: LinearSystem) -> Conflict:
    """The conflict in a linear system that no q satisfies."""
    relaxation, suspects = _elastic(system)
    if set(suspects) == set(capped := _too_small_caps(system)) and len(capped) > _LISTED:
        return Conflict(capped, False, relaxation)
    names, smallest = irreducible(suspects, system.names, lambda chosen: is_feasible(system.only(chosen)))
    return Conflict(names, smallest, relaxation)


def _too_small_caps(system: LinearSystem) -> tuple[str, ...]:
    """The caps, where they cap every q and sum to less than 1: each is needed for that, so no trial has to tell."""
    caps = system.inequality[system.is_cap]
    if (
        len(caps) != caps.shape[1]
        or (np.count_nonzero(caps, axis=1) != 1).any()
        or not caps.any(axis=0).all()
    ):
        return ()
    if (system.bound[system.is_cap] / caps.max(axis=1)).sum() >= 1:
        return ()
    return system.inequality_names[: len(caps)]


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def irreducible(
    suspects: Sequence[str], names: Sequence[str], feasible: Feasible
) -> tuple[tuple[str, ...], bool]:
    """A set in conflict from which nothing can be left out, as small as `_ENUMERATED` trials can tell.

    The deletion filter drops one constraint after another for as long as the rest still conflict; then all
    smaller sets are tried, where they are few.

    Args:
        suspects: constraints believed to conflict among themselves; all are taken where they do not.
        names: all constraints.
        feasible: whether constraints of these names can hold together.
    """
    conflict = list(suspects if not feasible(suspects) else names)
    for name in tuple(conflict):
        rest = [other for other in conflict if other != name]
        if not feasible(rest):
            conflict = rest
    for size in range(1, len(conflict)):
        if sum(comb(len(names), smaller) for smaller in range(1, size + 1)) > _ENUMERATED:
            return tuple(conflict), False
        for chosen in combinations(names, size):
            if not feasible(chosen):
                return chosen, True
    return tuple(conflict), True


def _elastic(system: LinearSystem) -> tuple[dict[str, float], tuple[str, ...]]:
    """The least total relaxation, by name, and the constraints whose prices prove that one is needed."""
    rows, width = system.inequality.shape
    pins = len(system.value)
    inequality = np.concatenate([system.inequality, -np.eye(rows), np.zeros((rows, 2 * pins))], axis=1)
    equality = np.block(
        [
            [np.ones((1, width)), np.zeros((1, rows + 2 * pins))],
            [system.equality, np.zeros((pins, rows)), np.eye(pins), -np.eye(pins)],
        ]
    )
    cost = np.concatenate([np.zeros(width), np.ones(rows + 2 * pins)])
    solved = linprog(
        cost, inequality, system.bound, equality, np.concatenate([[1.0], system.value]), method="highs-ds"
    )
    moved = solved.x[width:]
    amounts = np.concatenate([moved[:rows], moved[rows:].reshape(2, pins).sum(0)])
    prices = np.concatenate([solved.ineqlin.marginals, solved.eqlin.marginals[1:]])
    names = system.inequality_names + system.equality_names
    relaxation: dict[str, float] = {}
    for name, amount in zip(names, amounts, strict=True):
        if amount > INTERIOR:
            relaxation[name] = relaxation.get(name, 0.0) + float(amount)
    suspects = [name for name, price in zip(names, prices, strict=True) if abs(price) > INTERIOR]
    return relaxation, tuple(dict.fromkeys(suspects))
