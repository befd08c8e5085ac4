"""Second-order expansions carried from the leaves p to what is searched, p = E q."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixing.laws.regression import Expansion

SMALLEST = 1e-290
"""A weight that stands for 0 where its logarithm is taken."""


@dataclass(frozen=True)
class PullBack:
    """E with what a solver asks of it.

    Attributes:
        matrix: (m, n) column-stochastic.
    """

    matrix: np.ndarray

    @cached_property
    def is_identity(self) -> bool:
        """Whether q are the leaves themselves; the columns sum to 1, so a diagonal of ones says it."""
        rows, columns = self.matrix.shape
        return rows == columns and bool((self.matrix.diagonal() == 1).all())

    @cached_property
    def is_disjoint(self) -> bool:
        """Whether every leaf lies under at most one column, so that a diagonal stays diagonal."""
        return self.is_identity or bool(((self.matrix > 0).sum(1) <= 1).all())

    def leaves(self, free: np.ndarray) -> np.ndarray:
        """(n,) q to (m,) positive p; a leaf under no column gets a weight too small to count."""
        return np.maximum(self.expand(free), SMALLEST)

    def expand(self, free: np.ndarray) -> np.ndarray:
        """(n,) q to (m,) p."""
        return free if self.is_identity else self.matrix @ free

    def expansion(self, leaf: Expansion) -> Expansion:
        """An expansion on the leaves as one on q."""
        if self.is_identity:
            return leaf
        gradient = leaf.gradient @ self.matrix
        factors = leaf.factors @ self.matrix
        if self.is_disjoint:
            return Expansion(leaf.value, gradient, leaf.diagonal @ self.matrix**2, factors)
        used = self.matrix.any(axis=1) & (leaf.diagonal > 0)
        spread = np.sqrt(leaf.diagonal[used])[:, None] * self.matrix[used]
        return Expansion(
            leaf.value, gradient, np.zeros(self.matrix.shape[1]), np.concatenate([factors, spread])
        )

    def prior(self, prior: np.ndarray) -> np.ndarray:
        """(n,) pi' with KL(E q || prior) = sum_i q_i log(q_i / pi'_i), where `is_disjoint`; it need not sum to 1."""
        if self.is_identity:
            return prior
        safe = np.where(self.matrix > 0, self.matrix, 1.0)
        return np.exp((self.matrix * np.log(prior[:, None] / safe)).sum(0))

    def caps(self, caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where `is_disjoint`: the (n,) caps of q that (m,) caps of the leaves imply, and which leaf sets each.

        A virtual domain may grow until the first of its members runs out.
        """
        if self.is_identity:
            return caps, np.arange(len(caps))
        limits = np.full(self.matrix.shape, np.inf)
        np.divide(caps[:, None], self.matrix, out=limits, where=self.matrix > 0)
        holder = limits.argmin(axis=0)
        return limits[holder, np.arange(len(holder))], holder
