"""The capped simplex {p >= 0, sum p = 1, p <= caps}: bringing a point into it without rejection."""

import numpy as np

from mixing.errors import Infeasible

_SLACK = 1e-9


def check_caps(caps: np.ndarray) -> None:
    """Refuse (m,) caps that no mixture satisfies.

    Raises:
        Infeasible: the caps sum to less than 1.
    """
    if (total := float(np.minimum(caps, 1).sum())) < 1 - _SLACK:
        raise Infeasible(
            f"the caps sum to {total:.6g}, so no mixture of weights summing to 1 fits under them"
        )


def water_fill(weights: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Scale (m,) weights by one factor, clipping at the caps, so that the result sums to 1.

    What a domain loses to its cap goes to the others in proportion to their weights, so ratios between
    domains below their caps are kept and zeros stay zero. Where the caps of the domains present cannot
    hold the whole weight, all of these are at their caps and the result sums to less than 1. O(m log m).
    """
    present = weights > 0
    result = np.zeros_like(weights)
    share, bound = weights[present], np.minimum(caps[present], 1.0)
    if bound.sum() <= 1:
        result[present] = bound
        return result
    # In order of the factor at which a domain reaches its cap, the first `full` ones are at their caps.
    order = np.argsort(bound / share, kind="stable")
    share, bound = share[order], bound[order]
    held = np.concatenate([[0.0], np.cumsum(bound)[:-1]])
    loose = np.cumsum(share[::-1])[::-1]
    factors = (1 - held) / loose
    full = int(np.argmax(factors * share <= bound))
    filled = np.where(np.arange(len(share)) < full, bound, np.minimum(factors[full] * share, bound))
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    result[present] = filled[inverse]
    return result


def into_capped_simplex(weights: np.ndarray, caps: np.ndarray, reserve: np.ndarray) -> np.ndarray:
    """(m,) weights brought under the caps; what the domains present cannot hold goes to the others.

    Args:
        weights: non-negative, with a positive sum.
        caps: bounds; they must sum to at least 1 (`check_caps`).
        reserve: positive weights by which the absent domains share what is left over.
    """
    filled = water_fill(weights, caps)
    left = 1 - filled.sum()
    if left > 1e-12:
        room = np.minimum(caps, 1.0) - filled
        extra = water_fill(np.where(filled > 0, 0.0, reserve), np.where(filled > 0, 0.0, room) / left)
        filled = filled + left * extra
    return settle(filled, caps)


def settle(weights: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Remove rounding from (m,) weights: never above a cap, the sum's last bits on the largest free weight."""
    settled = np.clip(weights, 0.0, caps)
    room = np.where(settled > 0, caps - settled, -1.0)
    largest = int(np.argmax(np.minimum(room, settled)))
    settled[largest] = np.clip(settled[largest] + 1 - settled.sum(), 0.0, caps[largest])
    return settled
