"""The linear constraints of a problem as matrices on q, and how they look to a solver."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from mixing.simplex_map import SimplexMap
from mixing.solve.problem import LinearConstraint, MixtureProblem


@dataclass(frozen=True)
class LinearSystem:
    """G q <= h and A q = b, besides q >= 0 and sum q = 1.

    Attributes:
        inequality: (r, n) G, and `bound` (r,) h.
        equality: (e, n) A, and `value` (e,) b.
        inequality_names: (r,) what each row is: a domain's name for a cap, else the constraint's name.
        is_cap: (r,) whether the row is a cap.
        is_lower: (r,) whether the row is the lower end of a constraint, both sides negated.
        equality_names: (e,).
    """

    inequality: np.ndarray
    bound: np.ndarray
    equality: np.ndarray
    value: np.ndarray
    inequality_names: tuple[str, ...]
    is_cap: np.ndarray
    is_lower: np.ndarray
    equality_names: tuple[str, ...]

    @classmethod
    def of(cls, problem: MixtureProblem) -> Self:
        """The caps below 1 and the constraints of a problem, pulled back to q."""
        return cls.over(problem.space, problem.caps, problem.constraints)

    @classmethod
    def over(cls, space: SimplexMap, caps: np.ndarray, constraints: Sequence[LinearConstraint]) -> Self:
        """Those of (m,) caps and constraints on the leaves, before there is anything to minimise."""
        capped = np.flatnonzero(caps < 1)
        below = [space.matrix[capped]]
        bound = [caps[capped]]
        names = [space.leaves[j] for j in capped]
        lower = [np.zeros(len(capped), dtype=bool)]
        equal: list[tuple[np.ndarray, float, str]] = []
        for constraint in constraints:
            row = constraint.row(space.leaves)
            if constraint.lower == constraint.upper:
                equal.append((row, constraint.upper, constraint.name))
                continue
            for end, sign in ((constraint.upper, 1.0), (constraint.lower, -1.0)):
                if np.isfinite(end):
                    below.append(sign * space.pull_back_rows(row[None]))
                    bound.append(np.array([sign * end]))
                    names.append(constraint.name)
                    lower.append(np.array([sign < 0]))
        pins = np.array([row for row, _, _ in equal]).reshape(len(equal), len(space.leaves))
        return cls(
            inequality=np.concatenate(below),
            bound=np.concatenate(bound),
            equality=space.pull_back_rows(pins),
            value=np.array([value for _, value, _ in equal]),
            inequality_names=tuple(names),
            is_cap=np.arange(len(names)) < len(capped),
            is_lower=np.concatenate(lower),
            equality_names=tuple(name for _, _, name in equal),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every constraint once, in order."""
        return tuple(dict.fromkeys(self.inequality_names + self.equality_names))

    def only(self, names: Sequence[str]) -> "LinearSystem":
        """The system with the constraints of these names alone."""
        kept = [i for i, name in enumerate(self.inequality_names) if name in names]
        pins = [i for i, name in enumerate(self.equality_names) if name in names]
        return LinearSystem(
            self.inequality[kept],
            self.bound[kept],
            self.equality[pins],
            self.value[pins],
            tuple(self.inequality_names[i] for i in kept),
            self.is_cap[kept],
            self.is_lower[kept],
            tuple(self.equality_names[i] for i in pins),
        )

    def outside(self, free: np.ndarray) -> float:
        """By how much a q breaks the worst of the constraints, q >= 0 and sum q = 1 included."""
        return float(
            np.concatenate(
                [
                    self.inequality @ free - self.bound,
                    np.abs(self.equality @ free - self.value),
                    -free,
                    [abs(free.sum() - 1)],
                ]
            ).max()
        )

    def on_face(self, tight: np.ndarray, kept: np.ndarray) -> "LinearSystem":
        """The system where the rows `tight` (r,) hold with equality and the q not `kept` (n,) are 0.

        Equalities that the others imply are dropped.
        """
        if not len(self.value) and not tight.any() and kept.all():
            return self
        rows = np.concatenate([self.equality, self.inequality[tight]])[:, kept]
        values = np.concatenate([self.value, self.bound[tight]])
        names = self.equality_names + tuple(np.array(self.inequality_names)[tight])
        chosen = _independent(np.concatenate([np.ones((1, int(kept.sum()))), rows]))
        return replace(
            self,
            inequality=self.inequality[~tight][:, kept],
            bound=self.bound[~tight],
            equality=rows[chosen],
            value=values[chosen],
            inequality_names=tuple(np.array(self.inequality_names, dtype=str)[~tight]),
            is_cap=self.is_cap[~tight],
            is_lower=self.is_lower[~tight],
            equality_names=tuple(names[i] for i in chosen),
        )


def _independent(rows: np.ndarray) -> np.ndarray:
    """Which rows after the first are linearly independent of it and of each other."""
    chosen: list[int] = []
    basis = rows[:1] / np.linalg.norm(rows[0])
    for index, row in enumerate(rows[1:]):
        left = row - basis.T @ (basis @ row)
        left -= basis.T @ (basis @ left)
        if np.linalg.norm(left) > 1e-9 * max(np.linalg.norm(row), 1e-300):
            basis = np.concatenate([basis, left[None] / np.linalg.norm(left)])
            chosen.append(index)
    return np.array(chosen, dtype=int)


@dataclass(frozen=True)
class Box:
    """A linear system by the number of q that its inequalities touch.

    Attributes:
        lower: (n,) and `upper` (n,): what the rows on one q alone leave it, within [0, 1].
        coupling: (c, n) the other rows, and `bound` (c,).
    """

    lower: np.ndarray
    upper: np.ndarray
    coupling: np.ndarray
    bound: np.ndarray

    @classmethod
    def of(cls, system: LinearSystem) -> Self:
        """Sort the rows of a system."""
        alone = (system.inequality != 0).sum(1) == 1
        rows = system.inequality[alone]
        column = (rows != 0).argmax(1)
        coefficient = rows[np.arange(len(rows)), column]
        limit = system.bound[alone] / coefficient
        lower, upper = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        np.maximum.at(lower, column[coefficient < 0], limit[coefficient < 0])
        np.minimum.at(upper, column[coefficient > 0], limit[coefficient > 0])
        return cls(lower, upper, system.inequality[~alone], system.bound[~alone])
