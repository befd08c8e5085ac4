"""A law read through a linear map: y(p) = f(M p), which keeps gradients and convexity.

A law fitted over the contents of a lineage is read by the newest revision's domains; one fitted over virtual domains
is read by the leaves, each group's weights added up.
"""

from dataclasses import dataclass

import numpy as np

from mixing.laws.protocol import ConvexLaw, Differentiable, Expansion, Fitted


def through(law: Fitted, matrix: np.ndarray) -> Fitted:
    """The law as a function of (m,) weights p where it was fitted to (a,) weights M p; the law itself where M is I.

    Args:
        law: over a domains.
        matrix: (a, m) M.
    """
    rows, columns = matrix.shape
    if rows == columns and np.array_equal(matrix, np.eye(rows)):
        return law
    if isinstance(law, ConvexLaw):
        return _ConvexThrough(law, matrix)
    if isinstance(law, Differentiable):
        return _DifferentiableThrough(law, matrix)
    return _Through(law, matrix)


@dataclass(frozen=True)
class _Through:
    law: Fitted
    matrix: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.predict(weights @ self.matrix.T)


@dataclass(frozen=True)
class _DifferentiableThrough:
    law: Differentiable
    matrix: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.predict(weights @ self.matrix.T)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.law.gradient(weights @ self.matrix.T) @ self.matrix


@dataclass(frozen=True)
class _ConvexThrough:
    law: ConvexLaw
    matrix: np.ndarray

    def predict(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.law.predict(weights @ self.matrix.T)

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        return self.law.gradient(weights @ self.matrix.T) @ self.matrix

    def expand(self, weights: np.ndarray, task_weights: np.ndarray) -> Expansion:
        inner = self.law.expand(self.matrix @ weights, task_weights)
        # A row of M that reads one domain keeps its part of the Hessian on the diagonal; any other is a factor.
        alone = (self.matrix != 0).sum(axis=1) <= 1
        shared = ~alone & (inner.diagonal > 0)
        spread = np.sqrt(inner.diagonal[shared])[:, None] * self.matrix[shared]
        return Expansion(
            inner.value,
            inner.gradient @ self.matrix,
            inner.diagonal[alone] @ self.matrix[alone] ** 2,
            np.concatenate([inner.factors @ self.matrix, spread]),
        )
