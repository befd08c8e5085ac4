"""Whether any mixture satisfies the linear constraints, and where the inside of their set is.

Where none does: the smallest set in conflict, and the least change that ends it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from typing import Any, Self

import highspy
import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from mixing.errors import Infeasible
from mixing.solve.constraints import LinearSystem

INTERIOR = 1e-9
"""Least slack of a set that has an inside; below it the set is a point or a face."""
_PRECISE: Any = {"primal_feasibility_tolerance": INTERIOR / 10, "dual_feasibility_tolerance": INTERIOR / 10}
"""As fine as HiGHS goes: its usual 1e-7 is the whole cap of a domain of a millionth of the target's tokens."""


def is_feasible(system: LinearSystem) -> bool:
    """Whether some q satisfies the constraints, to `INTERIOR`."""
    return not _Trials.of(system).proof(system.names)


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
        options=_PRECISE,
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
        found = linear_conflict(system) or Conflict(system.names, False, {})  # rounding kept it from a proof
        raise found.error()
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

_OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "primal_feasibility_tolerance": INTERIOR,
}

_LISTED = 10  # constraints spelled out in a message

Proof = Callable[[Sequence[str]], Collection[str]]
"""Of some constraints by name: those that prove that all of them cannot hold together; none where they can."""


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
        change = f"; the least change that makes one possible relaxes {_listed(amounts)}" if amounts else ""
        return Infeasible(
            f"no mixture satisfies {_listed([repr(name) for name in self.constraints])}{together}{change}",
            field="constraints",
            names=self.constraints,
        )


def linear_conflict(system: LinearSystem) -> Conflict | None:
    """The conflict in a linear system; None where some q satisfies it."""
    trials = _Trials.of(system)
    if not (suspects := _proved(system.names, trials.proof)):
        return None
    relaxation = _least_relaxation(trials)
    if len(capped := _too_small_caps(system)) > _LISTED:
        return Conflict(capped, False, relaxation)
    # What is not suspected is left out, and with it most that tells one q from another.
    conflict = deletion_filter(suspects, trials.only(suspects).proof)
    names, smallest = smallest_conflict(conflict, system.names, trials.proof)
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


def deletion_filter(suspects: Sequence[str], proof: Proof) -> tuple[str, ...]:
    """Those of some constraints in conflict that still are, and from which nothing more can be left out.

    One constraint after another is dropped for as long as the rest conflict, and with it what the proof of that does
    not need (Chinneck and Dravnieks, ORSA Journal on Computing 3, 1991).
    """
    conflict = tuple(suspects)
    for name in suspects:
        if name in conflict:
            conflict = _proved([other for other in conflict if other != name], proof) or conflict
    return conflict


def smallest_conflict(
    conflict: tuple[str, ...], names: Sequence[str], proof: Proof
) -> tuple[tuple[str, ...], bool]:
    """The smallest set in conflict, and whether every smaller one was tried: where they are few, all are.

    Args:
        conflict: a set in conflict, the answer where none is smaller.
        names: all constraints.
        proof: tells whether constraints conflict.
    """
    for size in range(1, len(conflict)):
        if sum(comb(len(names), smaller) for smaller in range(1, size + 1)) > _ENUMERATED:
            return conflict, False
        for chosen in combinations(names, size):
            if proof(chosen):
                return chosen, True
    return conflict, True


def _proved(names: Sequence[str], proof: Proof) -> tuple[str, ...]:
    """Those of the constraints that a proof needs, all where rounding keeps it from being one; none: no conflict."""
    needed = frozenset(proof(names))
    fewer = tuple(name for name in names if name in needed)
    return fewer if not fewer or len(fewer) == len(names) or proof(fewer) else tuple(names)


class _Trials:
    """Whether constraints of a system can hold together, asked of many sets of them.

    One linear programme without an objective is kept, so each trial starts where the last one ended. Where it has
    no solution the dual simplex ends in a ray y >= 0 with y G > y h on the whole simplex (Farkas), of few rows. q of
    equal columns are one here: what one may weigh both may.
    """

    def __init__(
        self, system: LinearSystem, rows: sparse.csr_array, bound: np.ndarray, names: np.ndarray
    ) -> None:
        self.system, self.rows, self.bound, self.names = system, rows, bound, names
        """Each end of a constraint is a row: (r, n) coefficients, (r,) bounds and (r,) names."""
        columns = sparse.csc_array(rows)
        pieces = pairwise(np.asarray(columns.indptr).tolist())
        different = {
            (columns.indices[a:b].tobytes(), columns.data[a:b].tobytes()): k
            for k, (a, b) in enumerate(pieces)
        }
        rows = sparse.csr_array(columns[:, list(different.values())])
        self._rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            self._rows_of.setdefault(name, []).append(row)
        self._least = rows.min(axis=1).toarray().ravel()
        width = len(different)
        self._solver = _solver(rows, bound, width, np.zeros(width))
        self._asked = np.ones(len(names), dtype=bool)

    @classmethod
    def of(cls, system: LinearSystem) -> Self:
        """Of all constraints; an equality is two rows."""
        pins = sparse.csr_array(system.equality)
        rows = sparse.csr_array(sparse.vstack([sparse.csr_array(system.inequality), pins, -pins]))
        names = (*system.inequality_names, *system.equality_names, *system.equality_names)
        bound = np.concatenate([system.bound, system.value, -system.value])
        return cls(system, rows, bound, np.array(names, object))

    def only(self, names: Collection[str]) -> Self:
        """Of those of these names alone."""
        kept = np.array([name in names for name in self.names])
        return type(self)(self.system, self.rows[kept], self.bound[kept], self.names[kept])

    def proof(self, names: Sequence[str]) -> Collection[str]:
        """Those of the constraints that prove that all cannot hold together; none where they can."""
        chosen = [row for name in names for row in self._rows_of[name]]
        if len(names) == 1:
            return names if (self._least[chosen] > self.bound[chosen] + INTERIOR).any() else ()
        asked = np.zeros(len(self.names), dtype=bool)
        asked[chosen] = True
        changed = np.flatnonzero(asked != self._asked).astype(np.int32)
        self._asked = asked
        free = np.full(len(changed), highspy.kHighsInf)
        bound = np.where(asked[changed], self.bound[changed], free)
        self._solver.changeRowsBounds(len(changed), changed + 1, -free, bound)
        self._solver.run()
        status = self._solver.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return ()
        if status != highspy.HighsModelStatus.kInfeasible:  # rounding kept it from an answer
            return names if middle(self.system.only(names)) is None else ()
        _, has_ray, ray = self._solver.getDualRay()
        proof = asked & (np.abs(np.array(ray)[1:]) > INTERIOR) if has_ray else asked
        return frozenset(self.names[proof])


def _least_relaxation(trials: _Trials) -> dict[str, float]:
    """The least total amount by which bounds have to move, by name."""
    count, width = len(trials.bound), trials.system.inequality.shape[1]
    eased = sparse.csr_array(sparse.hstack([trials.rows, -sparse.eye_array(count)]))
    solver = _solver(eased, trials.bound, width, np.concatenate([np.zeros(width), np.ones(count)]))
    solver.run()
    relaxation: dict[str, float] = {}
    for name, amount in zip(trials.names, solver.getSolution().col_value[width:], strict=True):
        if amount > INTERIOR:
            relaxation[name] = relaxation.get(name, 0.0) + amount
    return relaxation


def _solver(rows: sparse.csr_array, bound: np.ndarray, width: int, cost: np.ndarray) -> Any:
    """HiGHS, to minimise cost x with rows x <= bound and x >= 0, the first `width` of x summing to 1.

    What of it is in C++ its types leave out.
    """
    count, columns = len(bound), len(cost)
    total = sparse.csr_array(np.arange(columns)[None] < width, dtype=float)
    matrix = sparse.csr_array(sparse.vstack([total, rows]))
    programme: Any = highspy.HighsLp()
    programme.num_row_, programme.num_col_ = count + 1, columns
    programme.col_cost_ = cost
    programme.col_lower_, programme.col_upper_ = np.zeros(columns), np.full(columns, highspy.kHighsInf)
    programme.row_lower_ = np.concatenate([[1.0], np.full(count, -highspy.kHighsInf)])
    programme.row_upper_ = np.concatenate([[1.0], bound])
    programme.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    programme.a_matrix_.start_, programme.a_matrix_.index_ = matrix.indptr, matrix.indices
    programme.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()
    for option, value in _OPTIONS.items():
        solver.setOptionValue(option, value)
    solver.passModel(programme)
    return solver
