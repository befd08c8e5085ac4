"""Covariances of fitted parameters, where the runs may leave some of them open."""

import numpy as np


def posterior_covariance(data: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """(N, P, P) inverses of `data` + `precision`, exact where the runs decide and never wider than the prior.

    In the prior's own units the matrix is 1 + (a positive semi-definite one), so what rounding makes of the second
    below 0 is put back to 0. A sum of the two that is inverted as it stands is singular to the last bit, on one
    processor or another, as soon as the runs know one parameter 10^8 times better than the prior does.

    Args:
        data: (N, P, P) information of the runs, positive semi-definite up to rounding.
        precision: (P, P) of the prior, positive definite.
    """
    # R^-T of precision = R^T R; a triangular inverse of a well-conditioned prior.
    unit = np.linalg.inv(np.linalg.cholesky(precision))
    values, vectors = np.linalg.eigh(unit @ data @ unit.T)
    spread = (unit.T @ vectors) / np.sqrt(1 + np.maximum(values, 0))[:, None, :]
    return spread @ spread.transpose(0, 2, 1)
