"""The question put to a solver: an objective convex in the mixture, and named linear constraints on it.

Everything is stated on the leaves p; `SimplexMap` carries it to the q that is searched, p = E q.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting, InvalidWeights, UnknownDomain
from mixing.simplex_map import SimplexMap


def normalized(weights: np.ndarray) -> np.ndarray:
    """(T,) task weights divided by their sum, so that all ones are the same as none given.

    Raises:
        InvalidWeights: a negative or infinite weight, or none above 0.
    """
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise InvalidWeights(
            "the objective's weights must be non-negative and at least one above 0", field="objective"
        )
    return weights / weights.sum()


@dataclass(frozen=True)
class Objective:
    """sum_t w_t exp(a_t . p) + lambda KL(p || prior), in the unit of the metrics (BPB).

    The constant sum_t w_t exp(c_t) of the law does not move the minimum and is left out.

    Attributes:
        coefficients: (T, m) a_t.
        task_weights: (T,) w_t, summing to 1 (see `normalized`).
        prior: (m,) positive, the natural distribution.
        kl_weight: lambda >= 0.
    """

    coefficients: np.ndarray
    task_weights: np.ndarray
    prior: np.ndarray
    kl_weight: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.kl_weight) and self.kl_weight >= 0):
            raise InvalidSetting(
                f"kl_weight is {self.kl_weight}; it must be a number of at least 0", field="kl_weight"
            )

    def value(self, weights: np.ndarray) -> float:
        """The objective at (m,) weights; 0 log 0 is 0."""
        return self.loss(weights) + self.kl_weight * divergence(weights, self.prior)

    def loss(self, weights: np.ndarray) -> float:
        """The part in BPB, without the KL term and without the law's constants."""
        return float(self.task_weights @ np.exp(self.coefficients @ weights))

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(m,) derivatives at positive weights."""
        slope = (self.task_weights * np.exp(self.coefficients @ weights)) @ self.coefficients
        if self.kl_weight == 0:
            return slope
        return slope + self.kl_weight * (np.log(weights / self.prior) + 1)


def divergence(weights: np.ndarray, prior: np.ndarray) -> float:
    """KL(p || prior) in nats."""
    present = weights > 0
    return float((weights[present] * np.log(weights[present] / prior[present])).sum())


@dataclass(frozen=True)
class LinearConstraint:
    """lower <= sum_j coefficients_j p_j <= upper, under a name a person can act on.

    A cap is `{domain: 1} <= cap`; the share of a group `{each member: 1}` in a range; a pin has
    lower == upper. Domains not mentioned have coefficient 0.
    """

    name: str
    coefficients: Mapping[str, float]
    lower: float = -np.inf
    upper: float = np.inf

    def row(self, leaves: tuple[str, ...]) -> np.ndarray:
        """(m,) coefficients in the order of the leaves.

        Raises:
            UnknownDomain: the constraint mentions a domain that is no leaf.
        """
        if unknown := sorted(set(self.coefficients) - set(leaves)):
            raise UnknownDomain(
                f"the constraint {self.name!r} names unknown domains: {', '.join(unknown)}",
                field="constraints",
                names=unknown,
            )
        return np.array([float(self.coefficients.get(name, 0.0)) for name in leaves])


@dataclass(frozen=True)
class MixtureProblem:
    """Minimise `objective` over the mixtures p = E q that respect the caps and constraints.

    Attributes:
        objective: on the leaves.
        space: the map from what is searched to the leaves.
        caps: (m,) largest weight of each leaf; at or above 1 it is no constraint.
        constraints: further linear constraints on the leaves.
    """

    objective: Objective
    space: SimplexMap
    caps: np.ndarray
    constraints: tuple[LinearConstraint, ...] = ()


@dataclass(frozen=True)
class LinearSystem:
    """The constraints of a problem as matrices on q, besides q >= 0 and sum q = 1.

    Attributes:
        inequality: (r, n) G and `bound` (r,) h of G q <= h.
        equality: (e, n) and `value` (e,).
        inequality_names: (r,) what each row is: a domain's name for a cap, else the constraint's name.
        is_cap: (r,) whether the row is a cap.
        equality_names: (e,).
    """

    inequality: np.ndarray
    bound: np.ndarray
    equality: np.ndarray
    value: np.ndarray
    inequality_names: tuple[str, ...]
    is_cap: np.ndarray
    equality_names: tuple[str, ...]


def linear_system(problem: MixtureProblem) -> LinearSystem:
    """The caps below 1 and the constraints of a problem, pulled back to q."""
    leaves = problem.space.leaves
    below = [
        (np.eye(len(leaves))[j], float(problem.caps[j]), leaves[j]) for j in np.flatnonzero(problem.caps < 1)
    ]
    caps = len(below)
    equal: list[tuple[np.ndarray, float, str]] = []
    for constraint in problem.constraints:
        row = constraint.row(leaves)
        if constraint.lower == constraint.upper:
            equal.append((row, constraint.upper, constraint.name))
            continue
        if np.isfinite(constraint.upper):
            below.append((row, constraint.upper, constraint.name))
        if np.isfinite(constraint.lower):
            below.append((-row, -constraint.lower, constraint.name))
    inequality, bound = _stacked(below, problem.space)
    equality, value = _stacked(equal, problem.space)
    return LinearSystem(
        inequality,
        bound,
        equality,
        value,
        tuple(name for _, _, name in below),
        np.arange(len(below)) < caps,
        tuple(name for _, _, name in equal),
    )


def _stacked(rows: list[tuple[np.ndarray, float, str]], space: SimplexMap) -> tuple[np.ndarray, np.ndarray]:
    matrix = np.array([row for row, _, _ in rows]).reshape(len(rows), len(space.leaves))
    return space.pull_back_rows(matrix), np.array([bound for _, bound, _ in rows])
