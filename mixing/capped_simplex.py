"""The capped simplex {p >= 0, sum p = 1, p <= caps}: bringing points into it without rejection.

Every function takes one point (m,) or many at once (n, m), and bounds of either shape. O(m log m) a point.
"""

import numpy as np

SLACK = 1e-9
"""How far bounds may fall short of the total, for the rounding of whoever computed them."""

_VANISHING = 1e-200
"""Shares below this fraction of the largest count as 0: dividing by them would overflow."""


def water_fill(weights: np.ndarray, caps: np.ndarray, total: np.ndarray | float = 1.0) -> np.ndarray:
    """Scale each row of weights by one factor, clipping at the caps, so that it sums to `total`.

    What a domain loses to its cap goes to the others in proportion to their weights, so ratios between
    domains below their caps are kept and zeros stay zero. Where the caps of the domains present cannot
    hold the whole, all of these are at their caps and the row sums to less.

    Args:
        weights: (m,) or (n, m), non-negative.
        caps: (m,) or (n, m), non-negative.
        total: a number, or (n,).
    """
    shape = np.broadcast_shapes(weights.shape, caps.shape)
    share = np.broadcast_to(weights, shape).reshape(-1, shape[-1])
    share = np.where(share > _VANISHING * share.max(1, keepdims=True), share, 0.0)
    goal = np.broadcast_to(np.asarray(total, float), shape[:-1]).reshape(-1, 1)
    bound = np.where(share > 0, np.minimum(caps, goal).reshape(share.shape), 0.0)
    # In order of the factor at which a domain reaches its cap, the first `full` ones are at their caps.
    reached = np.divide(bound, share, out=np.full(share.shape, np.inf), where=share > 0)
    order = np.argsort(reached, axis=1, kind="stable")
    share, bound = np.take_along_axis(share, order, 1), np.take_along_axis(bound, order, 1)
    held = np.zeros_like(bound)
    np.cumsum(bound[:, :-1], axis=1, out=held[:, 1:])
    loose = np.cumsum(share[:, ::-1], axis=1)[:, ::-1]
    factors = np.divide(goal - held, loose, out=np.zeros_like(loose), where=loose > 0)
    fits = factors * share <= bound
    full = np.where(fits.any(1), fits.argmax(1), shape[-1])[:, None]
    factor = np.take_along_axis(factors, np.minimum(full, shape[-1] - 1), 1)
    filled = np.where(np.arange(shape[-1]) < full, bound, np.clip(factor * share, 0.0, bound))
    result = np.empty_like(filled)
    np.put_along_axis(result, order, filled, 1)
    return result.reshape(shape)


def into_capped_simplex(weights: np.ndarray, caps: np.ndarray, reserve: np.ndarray) -> np.ndarray:
    """Weights brought under the caps; what the domains present cannot hold goes to the others.

    Args:
        weights: (m,) or (n, m), non-negative, with positive sums.
        caps: bounds; they must sum to at least 1.
        reserve: positive weights by which the absent domains share what is left over.
    """
    return into_bounds(weights, np.zeros_like(caps), caps, 1.0, reserve)


def into_bounds(
    weights: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    total: float,
    reserve: np.ndarray,
) -> np.ndarray:
    """Weights brought between bounds and to a sum of `total`; a row that is there already stays as it is.

    What each row has above its lower bounds is scaled by one factor and clipped at the upper ones. If that
    cannot reach the total, domains with nothing above their lower bound share the rest by `reserve`.

    Args:
        weights: (m,) or (n, m), non-negative.
        lower, upper: bounds with sum(lower) <= total <= sum(upper).
        total: what a row is to sum to.
        reserve: positive, of the shape of `weights` or (m,).
    """
    room = np.minimum(upper, total) - lower
    goal = total - np.broadcast_to(lower, room.shape).sum(-1)
    above = np.maximum(weights - lower, 0.0)
    filled = water_fill(above, room, goal)
    left = goal - filled.sum(-1)
    if np.any(left > 1e-12):
        extra = water_fill(np.where(filled > 0, 0.0, reserve), room, np.maximum(left, 0.0))
        filled = filled + np.where(np.asarray(left)[..., None] > 1e-12, extra, 0.0)
    return settle(lower + filled, upper, lower, total)


def settle(
    weights: np.ndarray, caps: np.ndarray, lower: np.ndarray | float = 0.0, total: float = 1.0
) -> np.ndarray:
    """Remove rounding: never beyond a bound, the sum's last bits on the weight farthest from its bounds."""
    settled = np.clip(weights, lower, caps)
    room = np.minimum(np.where(settled > 0, caps - settled, -1.0), settled - lower)
    largest = room.argmax(-1)[..., None]
    value = np.take_along_axis(settled, largest, -1) + (total - settled.sum(-1, keepdims=True))
    at = tuple(np.take_along_axis(np.broadcast_to(b, settled.shape), largest, -1) for b in (lower, caps))
    np.put_along_axis(settled, largest, np.clip(value, *at), -1)
    return settled
