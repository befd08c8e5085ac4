"""Near-duplicates among mixtures, and domains that a swarm does not vary enough to be identified."""

from collections.abc import Sequence

import numpy as np

_BLOCK = 2**22
"""Numbers compared at a time: 32 MiB."""


def distinct(weights: np.ndarray, distance: float) -> np.ndarray:
    """(n,) which of (n, m) rows to keep so that no two are within `distance` of each other in L1.

    Of two that are, the later goes. |r . (x - y)| <= |x - y|_1 for any r with entries in [-1, 1], so in the
    order of one such projection only neighbours need comparing: O(n m) for small distances.
    """
    kept = np.ones(len(weights), bool)
    direction = 2 * ((np.arange(weights.shape[1]) + 1) * 0.6180339887498949 % 1) - 1
    projected = weights @ direction
    order = np.argsort(projected, kind="stable")
    step = 1
    while step < len(order):
        close = np.flatnonzero(projected[order[step:]] - projected[order[:-step]] <= distance + 1e-12)
        if not len(close):
            break
        first, second = order[close], order[close + step]
        near = _distances(weights, first, second) <= distance
        if near.any():
            # Two links of a chain can go at once; only rows that stay are compared again.
            kept[np.maximum(first[near], second[near])] = False
            order, step = order[kept[order]], 1
        else:
            step += 1
    return kept


def _distances(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    size = max(1, _BLOCK // weights.shape[1])
    blocks = [slice(start, start + size) for start in range(0, len(first), size)]
    return np.concatenate([np.abs(weights[first[b]] - weights[second[b]]).sum(1) for b in blocks])


def unvaried(weights: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """The domains whose effect (K, m) runs cannot identify, in the order of `names`.

    A domain is named when its weight varies in one run at most (its sum of squared deviations is no more than
    that of a single run at one end of its range) or, with K > m runs, when its weight is a linear combination
    of the other varied domains' to one part in 10^5.
    """
    return tuple(name for name, few in zip(names, unidentified(weights), strict=True) if few)


def unidentified(weights: np.ndarray) -> np.ndarray:
    """(m,) the domains that `unvaried` names, as booleans."""
    few = effective_runs(weights) <= 1
    varied = np.flatnonzero(~few)
    if len(weights) > len(varied) > 0:
        # The squared residual of a column on the others is one over the diagonal of the inverse Gram matrix.
        columns = weights[:, varied] / np.sqrt((weights[:, varied] ** 2).sum(0))
        values, vectors = np.linalg.eigh(columns.T @ columns)
        residual = 1 / (vectors**2 / np.maximum(values, 1e-15)).sum(1)
        few[varied] = residual < 1e-10
    return few


def effective_runs(weights: np.ndarray) -> np.ndarray:
    """(m,) how many runs at the far end of its range a domain's variation amounts to; 0 where it is constant."""
    spread = np.ptp(weights, axis=0)
    varies = spread > 1e-9
    deviations = ((weights - weights.mean(0)) ** 2).sum(0)
    return np.where(varies, deviations / np.where(varies, spread, 1.0) ** 2, 0.0)
