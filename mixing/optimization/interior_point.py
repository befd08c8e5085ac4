"""A primal-dual interior point method for B mixture problems that share their constraints.

The problems are small (n domains) and many (one per bootstrap resample), so each iteration is one stacked
(n + e) x (n + e) Newton solve over all of them. Boyd and Vandenberghe, Convex Optimization, section 11.7.
"""

from dataclasses import dataclass

import numpy as np

from mixing.optimization.problem import LinearSystem

_CENTERING = 0.1  # each step aims at a tenth of the current complementarity
_TO_BOUNDARY = 0.99
_ARMIJO = 0.01
_BACKTRACKS = 25


@dataclass(frozen=True)
class ConvexPrograms:
    """Minimise sum_t w_t exp(a_bt . E q) + lambda KL(E q || prior) for b < B over one set of q.

    Attributes:
        coefficients: (B, T, m) laws.
        task_weights: (T,) summing to 1.
        prior: (m,).
        kl_weight: lambda.
        matrix: (m, n) E.
        system: constraints on q besides q >= 0 and sum q = 1.
    """

    coefficients: np.ndarray
    task_weights: np.ndarray
    prior: np.ndarray
    kl_weight: float
    matrix: np.ndarray
    system: LinearSystem

    def derivatives(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, n) gradients and (B, n, n) Hessians at (B, n) positive q."""
        pulled = self.coefficients @ self.matrix
        exponents = np.clip((pulled @ free[:, :, None])[:, :, 0], -50, 50)
        pull = self.task_weights * np.exp(exponents)
        gradient = (pull[:, None, :] @ pulled)[:, 0]
        hessian = (pulled * pull[:, :, None]).transpose(0, 2, 1) @ pulled
        if self.kl_weight > 0:
            reached = self.matrix.any(axis=1)  # a leaf under no column keeps weight 0
            rows, prior = self.matrix[reached], self.prior[reached]
            leaves = free @ rows.T
            gradient = gradient + self.kl_weight * (np.log(leaves / prior) + 1) @ rows
            hessian = hessian + self.kl_weight * (rows.T[None] / leaves[:, None, :]) @ rows
        return gradient, hessian


@dataclass(frozen=True)
class Point:
    """A primal-dual point of B problems.

    Attributes:
        free: (B, n) q.
        multipliers: (B, r + n) of G q <= h, then of q >= 0.
        prices: (B, 1 + e) of sum q = 1, then of the equalities.
        slack: (B, r + n) h - G q, then q.
    """

    free: np.ndarray
    multipliers: np.ndarray
    prices: np.ndarray
    slack: np.ndarray

    def moved(self, step: "Point", length: np.ndarray) -> "Point":
        """This point plus `length` (B,) times a step."""
        size = length[:, None]
        return Point(
            self.free + size * step.free,
            self.multipliers + size * step.multipliers,
            self.prices + size * step.prices,
            self.slack + size * step.slack,
        )


def minimize(
    programs: ConvexPrograms, start: np.ndarray, tolerance: float = 1e-12, iterations: int = 80
) -> Point:
    """Minimise all B problems from one (n,) strictly feasible start.

    A problem is finished when the mean complementarity and the residuals are below `tolerance`.
    """
    rows = _Rows.of(programs.system, len(start))
    count = len(programs.coefficients)
    free = np.tile(start, (count, 1))
    slack = np.maximum(rows.bound - free @ rows.inequality.T, 1e-12)
    point = Point(free, 0.1 / np.maximum(slack, 1e-3), np.zeros((count, len(rows.value))), slack)
    for _ in range(iterations):
        residual = _residual(programs, rows, point, target=np.zeros(count))
        gap = (point.slack * point.multipliers).mean(1)
        if (gap < tolerance).all() and (np.abs(residual).max(1) < 10 * tolerance).all():
            break
        target = _CENTERING * gap
        step = _newton_step(programs, rows, point, target)
        point = _advance(programs, rows, point, step, target)
    return point


@dataclass(frozen=True)
class _Rows:
    """All constraints: inequality (r + n, n), bound; equality (1 + e, n), value."""

    inequality: np.ndarray
    bound: np.ndarray
    equality: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, system: LinearSystem, width: int) -> "_Rows":
        return cls(
            np.concatenate([system.inequality, -np.eye(width)]),
            np.concatenate([system.bound, np.zeros(width)]),
            np.concatenate([np.ones((1, width)), system.equality]),
            np.concatenate([[1.0], system.value]),
        )


def _residual(programs: ConvexPrograms, rows: _Rows, point: Point, target: np.ndarray) -> np.ndarray:
    """(B, ...) stationarity, feasibility and complementarity, all 0 on the central path at `target`."""
    gradient, _ = programs.derivatives(point.free)
    return np.concatenate(
        [
            gradient + point.multipliers @ rows.inequality + point.prices @ rows.equality,
            point.free @ rows.inequality.T + point.slack - rows.bound,
            point.free @ rows.equality.T - rows.value,
            point.slack * point.multipliers - target[:, None],
        ],
        axis=1,
    )


def _newton_step(programs: ConvexPrograms, rows: _Rows, point: Point, target: np.ndarray) -> Point:
    gradient, hessian = programs.derivatives(point.free)
    count, width = point.free.shape
    equalities = len(rows.value)
    ratio = point.multipliers / point.slack
    infeasible = point.free @ rows.inequality.T + point.slack - rows.bound
    pushed = (target[:, None] - point.slack * point.multipliers) / point.slack + ratio * infeasible
    matrix = np.zeros((count, width + equalities, width + equalities))
    matrix[:, :width, :width] = hessian + (rows.inequality.T[None] * ratio[:, None, :]) @ rows.inequality
    matrix[:, :width, width:] = rows.equality.T
    matrix[:, width:, :width] = rows.equality
    right = np.empty((count, width + equalities))
    dual = gradient + point.multipliers @ rows.inequality + point.prices @ rows.equality
    right[:, :width] = -dual - pushed @ rows.inequality
    right[:, width:] = rows.value - point.free @ rows.equality.T
    solved = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    free = solved[:, :width]
    moved = free @ rows.inequality.T
    return Point(free, pushed + ratio * moved, solved[:, width:], -infeasible - moved)


def _advance(programs: ConvexPrograms, rows: _Rows, point: Point, step: Point, target: np.ndarray) -> Point:
    """The longest step that stays inside and reduces the residual; a problem without one stays put."""
    length = np.minimum(
        _distance_to_boundary(point.slack, step.slack),
        _distance_to_boundary(point.multipliers, step.multipliers),
    )
    before = np.linalg.norm(_residual(programs, rows, point, target), axis=1)
    worse = np.zeros(len(before), dtype=bool)
    for _ in range(_BACKTRACKS):
        after = np.linalg.norm(_residual(programs, rows, point.moved(step, length), target), axis=1)
        # At the limit of rounding no step reduces the residual any more: staying near it is enough.
        worse = after > np.maximum((1 - _ARMIJO * length) * before, 1e-13)
        if not worse.any():
            return point.moved(step, length)
        length = np.where(worse, length / 2, length)
    return point.moved(step, np.where(worse, 0, length))


def _distance_to_boundary(values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(B,) the largest length up to 1 that keeps positive values positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        limits = np.where(step < 0, -values / step, np.inf)
    return np.minimum(1.0, _TO_BOUNDARY * limits.min(1))
