"""A Newton method for the most common problem: F(p) + lambda KL(p || prior) over the capped simplex, lambda > 0.

The Hessian of F is diag + U^T U with few rows in U, and that of the KL term is lambda / p, so a Newton step costs
O(T^2 m) by the Woodbury identity, or O(T m^2) where there are fewer domains than tasks. The step dp is taken in
log-weights, p exp(dp / p): where the KL term dominates one such step is exact, and no weight reaches 0. The new
point is brought back by its KL projection (`water_fill`: one factor for all, clipped at the caps), which puts any
number of domains exactly on their caps at once. A domain stays on its cap while the objective would rise if it left
(Bertsekas, Projected Newton methods, 1982). Four to seven steps usually do.

Each iterate carries a bound on what is still to be gained, from the point alone: for convex F,
F(p) - min F <= g . p - min_q g . q over the capped simplex, and that minimum is a fractional knapsack.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from mixing.capped_simplex import water_fill
from mixing.laws.regression import Expansion

_LONGEST = 50.0  # of a step in log-weights
_ARMIJO = 1e-4
_BACKTRACKS = 40
_ROUNDING = 1e-14
_LEAST = 1e-190
"""A weight that stands for 0 and can rise again: `water_fill` takes away for good what is below 1e-200 of another."""


@dataclass(frozen=True)
class CappedProblem:
    """Minimise smooth(p) + kl_weight KL(p || prior) over {p >= 0, sum p = 1, p <= caps}.

    Attributes:
        smooth: value and derivatives of F at an (m,) point.
        prior: (m,) positive; it need not sum to 1.
        kl_weight: lambda > 0.
        caps: (m,) positive, summing to at least 1.
    """

    smooth: Callable[[np.ndarray], Expansion]
    prior: np.ndarray
    kl_weight: float
    caps: np.ndarray


def knapsack(gradient: np.ndarray, caps: np.ndarray) -> float:
    """min gradient . q over the capped simplex: fill the cheapest domains up to their caps. O(m log m)."""
    order = np.argsort(gradient)
    room = np.minimum(caps[order], 1.0)
    before = np.cumsum(room) - room
    return float(gradient[order] @ np.clip(1 - before, 0, room))


def minimize_capped(problem: CappedProblem, tolerance: float = 1e-9, iterations: int = 60) -> "CappedPoint":
    """Iterate until the certified gap is below `tolerance` or no step gains any more.

    Args:
        problem: what to minimise.
        tolerance: on the gap.
        iterations: most Newton steps.
    """
    at = CappedPoint.at(problem, np.maximum(water_fill(problem.prior, problem.caps), _LEAST))
    for _ in range(iterations):
        moved = None if at.gap <= tolerance else _step(at)
        if moved is None:
            break
        at = moved
    return at


@dataclass(frozen=True)
class CappedPoint:
    """A feasible point with the objective to second order.

    Attributes:
        problem: whose point it is.
        weights: (m,).
        value: the objective there.
        gradient: (m,) of the whole objective there.
        smooth: F there.
    """

    problem: CappedProblem
    weights: np.ndarray
    value: float
    gradient: np.ndarray
    smooth: Expansion

    @classmethod
    def at(cls, problem: CappedProblem, weights: np.ndarray) -> Self:
        """The point of (m,) positive weights."""
        smooth = problem.smooth(weights)
        ratio = np.log(weights / problem.prior)
        value = smooth.value + problem.kl_weight * float(weights @ ratio)
        return cls(problem, weights, value, smooth.gradient + problem.kl_weight * (ratio + 1), smooth)

    @cached_property
    def gap(self) -> float:
        """Certified upper bound on the distance to the minimum."""
        return max(float(self.gradient @ self.weights) - knapsack(self.gradient, self.problem.caps), 0.0)

    @cached_property
    def loose(self) -> np.ndarray:
        """(m,) whether a domain may move: below its cap, or on it and better off lower."""
        below = self.weights < self.problem.caps
        return below | (self.gradient > self._level(below))

    @property
    def level(self) -> float:
        """The common value of the gradient below the caps; level - gradient_j is the price of cap j."""
        return self._level(self.loose)

    def _level(self, loose: np.ndarray) -> float:
        """The gradient's mean over the loose domains by weight; where none is loose, the highest gradient."""
        share = self.weights[loose].sum()
        if share == 0:
            return float(self.gradient.max())
        return float(self.gradient[loose] @ self.weights[loose] / share)


def _step(at: CappedPoint) -> CappedPoint | None:
    """The next point; None where no step along the Newton direction lowers the objective."""
    problem, loose = at.problem, at.loose
    weights, caps = at.weights[loose], problem.caps[loose]
    direction = np.clip(_direction(at)[loose] / weights, -_LONGEST, _LONGEST)
    budget = 1 - problem.caps[~loose].sum()
    limits = caps / budget
    length = 1.0
    for _ in range(_BACKTRACKS):
        moved = at.weights.copy()
        scaled = np.maximum(weights * np.exp(length * direction), _LEAST)
        filled = water_fill(scaled, limits)
        # Budget times limit may miss a cap by a bit, and whether a domain is on its cap is asked exactly.
        moved[loose] = np.where(filled >= limits, caps, np.maximum(budget * filled, _LEAST))
        trial = CappedPoint.at(problem, moved)
        expected = float(at.gradient @ (moved - at.weights))
        if trial.value <= at.value + _ARMIJO * expected + _ROUNDING * (1 + abs(at.value)):
            return trial
        length /= 2
    return None


def _direction(at: CappedPoint) -> np.ndarray:
    """(m,) dp: H dp = level - gradient on the loose domains, with the level at which dp sums to 0; else 0."""
    curvature = at.smooth.diagonal + at.problem.kl_weight / at.weights
    scale = np.where(at.loose, 1 / np.sqrt(curvature), 0.0)
    downhill, level = scale * _solve_shifted(at.smooth.factors * scale, [at.gradient * scale, scale])
    return level * (downhill.sum() / level.sum()) - downhill


def _solve_shifted(factors: np.ndarray, sides: list[np.ndarray]) -> np.ndarray:
    """(2, n) solutions x of (I + U^T U) x = side for (r, n) U, through the smaller of the two Gram matrices."""
    rank, width = factors.shape
    if rank >= width:
        return _solve_plus_one(factors.T @ factors, np.array(sides))
    # One product per side: with a matrix of two columns they take twice the time.
    within = _solve_plus_one(factors @ factors.T, np.array([factors @ side for side in sides]))
    return np.array([side - row @ factors for side, row in zip(sides, within, strict=True)])


def _solve_plus_one(gram: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Rows x with (I + gram) x = side, for rows of sides; overwrites gram."""
    gram.flat[:: len(gram) + 1] += 1
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, sides.T, check_finite=False).T
