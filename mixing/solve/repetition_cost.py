"""Repetition as a cost instead of a cap: what a token read again no longer teaches.

Of the p_j R tokens that a mixture reads from a domain of N_j unique tokens, D'(p_j R) are worth fresh ones
(`effective_tokens`, arXiv 2305.16264). The rest is lost, as a share of the whole run

    l_j(p_j) = p_j - D'_j / R = x - u R* (1 - exp(-x / (u R*))),   x = max(p_j - u, 0),   u = N_j / R.

D' is concave, so l_j is convex, 0 up to one epoch and smooth there, and the cost

    price * sum_j l_j(p_j)

keeps a convex problem convex. Putting D'_j / R into the law in place of p_j would be the other way. It is convex only
where every task's loss falls in every weight, which on the simplex, where a log-linear law's effects are defined up
to a constant, means nothing; and it would reward repeating a domain that the law says does harm.

The price is in BPB per share of the run's tokens. A loss that falls with the tokens as dL / d log D = -s loses s l
to first order when the share l of its tokens teaches nothing, so the price is s: for L = E + B D^-b it is b B D^-b.
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting

HALF_LIFE_EPOCHS = 15.387756
"""R* of Muennighoff et al., Scaling Data-Constrained Language Models (arXiv 2305.16264)."""


def effective_tokens(unique_tokens: np.ndarray | float, total_tokens: np.ndarray | float) -> np.ndarray:
    """Fresh tokens that `total_tokens` read from `unique_tokens` are worth (same shape, broadcast).

    D' = U + U R* (1 - exp(-(D/U - 1) / R*)) for D > U, else D (arXiv 2305.16264, section 3.1).
    """
    unique = np.asarray(unique_tokens, float)
    total = np.asarray(total_tokens, float)
    repeats = np.maximum(total / unique - 1, 0)
    saturating = unique * (1 - HALF_LIFE_EPOCHS * np.expm1(-repeats / HALF_LIFE_EPOCHS))
    return np.where(total > unique, saturating, total)


@dataclass(frozen=True)
class RepetitionCost:
    """`price` times the share of the training run's tokens lost to repetition; see the module.

    Attributes:
        price: BPB per share of the tokens, at least 0.
        once: (m,) u_j = N_j / R, the weight at which a domain is read exactly once.
    """

    price: float
    once: np.ndarray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.price) and self.price >= 0):
            raise InvalidSetting(
                f"the price of repetition is {self.price}; it must be a number of at least 0",
                field="repetition_price",
            )
        if not (np.asarray(self.once) > 0).all():
            raise InvalidSetting("every domain needs tokens to be read", field="target_tokens")

    def value(self, weights: np.ndarray) -> np.ndarray:
        """(...) the cost at (..., m) weights, in BPB."""
        width = self.once * HALF_LIFE_EPOCHS
        again = np.maximum(weights - self.once, 0.0)
        return self.price * (again + width * np.expm1(-again / width)).sum(axis=-1)

    def expand(self, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Value, (m,) first and (m,) second derivatives at (m,) weights; the second jumps at one epoch."""
        width = self.once * HALF_LIFE_EPOCHS
        again = np.maximum(weights - self.once, 0.0)
        lost = -np.expm1(-again / width)
        curvature = np.where(again > 0, (1 - lost) / width, 0.0)
        return float(self.value(weights)), self.price * lost, self.price * curvature
