"""Whether any mixture satisfies the linear constraints, and where the inside of their set is."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import linprog

from mixing.solve.linear_system import LinearSystem

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


@dataclass(frozen=True)
class Face:
    """Where the feasible set lies: the smallest face of the simplex, and the rows that hold it there.

    Attributes:
        tight: (r,) rows that hold with equality everywhere in the set.
        kept: (n,) the q that are not 0 everywhere in the set.
        inside: (n,) a q that satisfies every other row strictly.
    """

    tight: np.ndarray
    kept: np.ndarray
    inside: np.ndarray

    @classmethod
    def whole(cls, system: LinearSystem, inside: np.ndarray) -> Self:
        """That of a set with an inside."""
        rows, width = system.inequality.shape
        return cls(np.zeros(rows, dtype=bool), np.ones(width, dtype=bool), inside)


def face(system: LinearSystem) -> Face:
    """The face of a set that is not empty.

    One linear programme over the cone of the set, (q, tau) with tau >= 1: maximise sum_i t_i with 0 <= t_i <= 1
    and slack_i(q, tau) >= t_i. In a cone every slack that can be positive can be 1, so t_i is 0 or 1.
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
    return Face(~positive[:rows], positive[rows:], solved.x[:width] / solved.x[width])
