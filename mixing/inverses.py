"""Inverses of matrices that data can make singular: of information that runs leave open, and of covariances of what
was measured twice.

Runs that repeat each other, and fewer of them than parameters, leave directions of which nothing is known. A matrix
inverted as it stands is then singular, to the last bit on one processor and not on another; here no inverse fails.
"""

import numpy as np

_OPEN = 1e-12
"""Of a prior's precision of a parameter, what it has at least of any direction: one it leaves open is wide."""

_TOGETHER = 1e-9
"""Of the largest variance in any direction, below which there is none."""


def floored_inverse(matrix: np.ndarray, share: float = 1e-12) -> np.ndarray:
    """(..., P, P) inverses of positive semi-definite matrices that may be singular.

    Every eigenvalue is raised by this share of their sum, far above what rounding makes of it on any processor: what
    no run decides comes out wide, and nothing is refused. Of what lies in the matrix's range it is the pseudo-inverse
    to within that share. Where the whole matrix is 0 the share itself is the floor.
    """
    sizes = np.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    return np.linalg.inv(matrix + share * np.where(sizes > 0, sizes, 1.0) * np.eye(matrix.shape[-1]))


def pseudo_roots(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) F and G: F F^T a covariance, G G^T its pseudo-inverse; what varies together is one, and 0 in both."""
    values, vectors = np.linalg.eigh(covariance)
    lengths = np.sqrt(np.where(values > _TOGETHER * values[-1], values, 0.0))
    inverses = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return vectors * lengths, vectors * inverses


def posterior_root(data: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """(..., P, P) roots S, S S^T = (data + precision)^-1, which never widen the prior.

    In the prior's own units the matrix is 1 + (a positive semi-definite one), so what rounding makes of the second
    below 0 is put back to 0. A sum of the two that is inverted as it stands is singular to the last bit, on one
    processor or another, as soon as the runs know one parameter 10^8 times better than the prior does.

    Args:
        data: (..., P, P) information of the runs, positive semi-definite up to rounding.
        unit: (..., P, P) R, precision of the prior = (R^T R)^-1.
    """
    transposed = np.swapaxes(unit, -1, -2)
    values, vectors = np.linalg.eigh(unit @ data @ transposed)
    return (transposed @ vectors) / np.sqrt(1 + np.maximum(values, 0))[..., None, :]


def posterior_covariance(data: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(N, P, P) inverses of `data` + `precision`, exact where the runs decide and never wider than the prior.

    Args:
        data: (N, P, P) information of the runs, positive semi-definite up to rounding.
        precision: (P, P) of the prior, positive semi-definite; each parameter has some. In a direction that it leaves
            open it is taken as 10^-12 of what it is in the parameters' own.
    """
    scale = 1 / np.sqrt(np.diagonal(precision))
    correlated = precision * scale[:, None] * scale + _OPEN * np.eye(len(precision))
    root = posterior_root(data, np.linalg.inv(np.linalg.cholesky(correlated)) * scale)
    return root @ root.transpose(0, 2, 1)
