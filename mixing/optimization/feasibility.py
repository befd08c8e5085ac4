"""Whether any mixture satisfies the constraints, where their middle is, and which are in conflict."""

import numpy as np
from scipy.optimize import linprog

from mixing.errors import Infeasible
from mixing.optimization.problem import LinearSystem

INTERIOR = 1e-9
"""Least slack of a set that has an inside; below it the set is a point or a face."""


def middle(system: LinearSystem, width: int) -> tuple[np.ndarray, float]:
    """The (n,) q whose smallest slack over all constraints is largest, and that slack.

    Raises:
        Infeasible: naming the constraints that conflict.
    """
    rows = len(system.bound)
    inequality = np.block([[system.inequality, np.ones((rows, 1))], [-np.eye(width), np.ones((width, 1))]])
    bound = np.concatenate([system.bound, np.zeros(width)])
    equality, value = _equalities(system, width, extra=1)
    cost = np.zeros(width + 1)
    cost[-1] = -1
    bounds = [(0, 1)] * width + [(None, 1)]
    solved = linprog(cost, inequality, bound, equality, value, bounds)
    if solved.x is None or solved.x[-1] < -INTERIOR:
        raise _conflict(system, width)
    return np.asarray(solved.x[:-1]), float(max(solved.x[-1], 0))


def lowest_linear(gradient: np.ndarray, system: LinearSystem) -> float:
    """The minimum of gradient . q over the feasible q, which is not empty."""
    width = len(gradient)
    equality, value = _equalities(system, width, extra=0)
    solved = linprog(gradient, system.inequality, system.bound, equality, value, [(0, 1)] * width)
    return float(solved.fun)


def _equalities(system: LinearSystem, width: int, extra: int) -> tuple[np.ndarray, np.ndarray]:
    equality = np.concatenate([np.ones((1, width)), system.equality])
    padded = np.concatenate([equality, np.zeros((len(equality), extra))], axis=1)
    return padded, np.concatenate([[1.0], system.value])


def _conflict(system: LinearSystem, width: int) -> Infeasible:
    """The constraints that the least total relaxation has to give up, with how much of each."""
    rows, pins = len(system.bound), len(system.value)
    inequality = np.concatenate([system.inequality, -np.eye(rows), np.zeros((rows, 2 * pins))], axis=1)
    equality = np.block(
        [
            [np.ones((1, width)), np.zeros((1, rows + 2 * pins))],
            [system.equality, np.zeros((pins, rows)), np.eye(pins), -np.eye(pins)],
        ]
    )
    value = np.concatenate([[1.0], system.value])
    cost = np.concatenate([np.zeros(width), np.ones(rows + 2 * pins)])
    solved = linprog(cost, inequality, system.bound, equality, value)
    broken = np.asarray(solved.x[width : width + rows])
    shifted = np.asarray(solved.x[width + rows :]).reshape(2, pins).sum(0)
    amounts = {
        name: float(amount)
        for name, amount in zip(
            system.inequality_names + system.equality_names, [*broken, *shifted], strict=True
        )
        if amount > INTERIOR
    }
    listed = ", ".join(f"{name!r} by {amount:.4g}" for name, amount in sorted(amounts.items()))
    return Infeasible(
        f"no mixture satisfies the constraints together; the least change that makes one possible relaxes"
        f" {listed}",
        field="constraints",
        names=sorted(amounts),
    )
