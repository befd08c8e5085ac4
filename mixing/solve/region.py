"""The feasible mixtures as a set to draw from and to move in, for searches that cannot use derivatives."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from mixing.solve.conflicts import linear_conflict, middle
from mixing.solve.linear_system import Box, LinearSystem
from mixing.solve.problem import MixtureProblem

STRENGTHS = np.logspace(-1, 2, 13)
"""Of the Dirichlet draws, relative to a centre of mean weight 1: from single domains to near the centre."""


@dataclass(frozen=True)
class Region:
    """{q : G q <= h, A q = b, sum q = 1, q >= 0}, not empty.

    Attributes:
        system: its constraints.
        inside: (n,) the q deepest in it.
    """

    system: LinearSystem
    inside: np.ndarray

    @classmethod
    def of(cls, problem: MixtureProblem) -> Self:
        """The region of a problem's linear constraints.

        Raises:
            Infeasible: it is empty.
        """
        system = LinearSystem.of(problem)
        found = middle(system)
        if found is None:
            raise linear_conflict(system).error()
        return cls(system, found[0])

    @cached_property
    def box(self) -> Box:
        """The constraints by the number of q they touch."""
        return Box.of(self.system)

    @cached_property
    def equality(self) -> np.ndarray:
        """(e', n) orthonormal rows spanning sum q and the equalities."""
        rows = np.concatenate([np.ones((1, len(self.inside))), self.system.equality])
        _, size, basis = np.linalg.svd(rows, full_matrices=False)
        return basis[size > 1e-10 * size[0]]

    def along(self, directions: np.ndarray) -> np.ndarray:
        """(N, n) directions without what would leave the equalities."""
        return directions - (directions @ self.equality.T) @ self.equality

    def reach(self, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """(N,) the largest step along each (N, n) direction that stays in the region."""
        box = self.box
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.where(directions < 0, (box.lower - points) / directions, np.inf)
            upper = np.where(directions > 0, (box.upper - points) / directions, np.inf)
            steepness = directions @ box.coupling.T
            rows = np.where(steepness > 0, (box.bound - points @ box.coupling.T) / steepness, np.inf)
        limits = np.concatenate([lower, upper, rows], axis=1).min(axis=1)
        return np.maximum(np.where(np.isfinite(limits), limits, 0.0), 0.0)

    def towards(self, points: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(N, n) targets, each pulled back to where the way from a point of the region to it leaves the region."""
        directions = self.along(targets - points)
        return points + np.minimum(self.reach(points, directions), 1.0)[:, None] * directions

    def draw(self, centre: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        """(count, n) Dirichlet draws of many strengths, half around (n,) `centre` and half around uniform.

        Caps are kept by water-filling, all other constraints by stopping on the way from `inside`.
        """
        width = len(centre)
        # Below this a gamma draw can underflow in every domain at once.
        around = np.maximum(np.stack([centre * width, np.ones(width)]), 1e-2)
        shapes = around[np.arange(count) % 2] * generator.choice(STRENGTHS, size=count)[:, None]
        drawn = generator.gamma(shapes) + 1e-300
        drawn /= drawn.sum(axis=1, keepdims=True)
        if self.box.upper.sum() >= 1:
            drawn = _under_caps(drawn, self.box.upper)
        return self.towards(np.tile(self.inside, (count, 1)), drawn)


def _under_caps(drawn: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """(N, n) mixtures with what is above the (n,) caps given to the domains below them, in proportion.

    Each round puts at least one more domain of a row on its cap, and a few rounds settle all rows. What the domains
    present cannot hold goes to the others by the room they have.
    """
    filled = np.minimum(drawn, caps)
    for _ in range(len(caps)):
        missing = 1 - filled.sum(axis=1, keepdims=True)
        if missing.max() <= 1e-12:
            break
        loose = np.where(filled < caps, filled, 0.0)
        held = loose.sum(axis=1, keepdims=True)
        room = caps - filled
        share = np.where(
            held > 1e-12,
            loose / np.maximum(held, 1e-300),
            room / np.maximum(room.sum(axis=1, keepdims=True), 1e-300),
        )
        filled = np.minimum(filled + np.maximum(missing, 0.0) * share, caps)
    return filled
