"""Dirichlet draws from gamma variates in the logarithm, many at once.

A strength of 0.1 on a prior of 1e-6 makes a gamma shape of 1e-7, whose variates underflow to 0 nearly always:
a row of zeros over zeros. In the logarithm nothing underflows: G(a) = G(a + 1) U^(1/a) in distribution, so
log G(a) = log G(a + 1) - E / a with E exponential (Marsaglia and Tsang, 2000).
"""

import numpy as np


def log_gamma_variates(shapes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """log of one Gamma(shape, 1) variate for each of the shapes; -inf where the shape is 0."""
    positive = shapes > 0
    safe = np.where(positive, shapes, 1.0)
    drawn = np.log(generator.standard_gamma(safe + 1.0)) - generator.standard_exponential(safe.shape) / safe
    return np.where(positive, drawn, -np.inf)


def dirichlet_rows(shapes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) one Dirichlet draw for each row of (n, m) non-negative shapes; 0 where the shape is 0."""
    return normalised_within(log_gamma_variates(shapes, generator), np.array([0]))


def normalised_within(logarithms: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Exponentials of (n, m) logarithms, divided by their sum within each group of adjacent columns.

    Args:
        logarithms: at least one of every row and group above -inf.
        starts: (g,) the first column of each group, rising from 0.
    """
    widths = np.diff(np.append(starts, logarithms.shape[1]))
    largest = np.maximum.reduceat(logarithms, starts, axis=1)
    weights = np.exp(logarithms - np.repeat(largest, widths, axis=1))
    return weights / np.repeat(np.add.reduceat(weights, starts, axis=1), widths, axis=1)
