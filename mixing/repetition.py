"""Repetition: how often a domain may be read, and what a repeated token is worth.

Within R target tokens a domain of N_j tokens and weight p_j is read p_j R / N_j times (epochs); a
repetition cap of k epochs is the bound p_j <= k N_j / R.
"""

import math

import numpy as np

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting

HALF_LIFE_EPOCHS = 15.387756
"""R* of Muennighoff et al., Scaling Data-Constrained Language Models (arXiv 2305.16264)."""


def repetition_caps(domains: Domains, target_tokens: float, cap: float | None) -> np.ndarray:
    """(m,) the largest weight of each domain, k N_j / R; above 1 where the cap cannot bind.

    Args:
        domains: m domains with their tokens N_j.
        target_tokens: R > 0.
        cap: k > 0 epochs, or None for no cap (every bound infinite).

    Raises:
        InvalidSetting: a target or cap that is not positive and finite.
    """
    _check_positive("target_tokens", target_tokens)
    if cap is None:
        return np.full(len(domains), np.inf)
    _check_positive("repetition_cap", cap)
    return cap * domains.tokens / target_tokens


def epochs(domains: Domains, weights: np.ndarray, target_tokens: float) -> np.ndarray:
    """(m,) times each domain is read: p_j R / N_j."""
    return weights * target_tokens / domains.tokens


def effective_tokens(unique_tokens: np.ndarray | float, total_tokens: np.ndarray | float) -> np.ndarray:
    """Fresh tokens that `total_tokens` read from `unique_tokens` are worth (same shape, broadcast).

    D' = U + U R* (1 - exp(-(D/U - 1) / R*)) for D > U, else D (arXiv 2305.16264, section 3.1).
    """
    unique = np.asarray(unique_tokens, float)
    total = np.asarray(total_tokens, float)
    repeats = np.maximum(total / unique - 1, 0)
    saturating = unique * (1 - HALF_LIFE_EPOCHS * np.expm1(-repeats / HALF_LIFE_EPOCHS))
    return np.where(total > unique, saturating, total)


def check_target_reachable(domains: Domains, target_tokens: float, cap: float | None) -> None:
    """Refuse a target that no mixture reaches: sum_j min(1, k N_j / R) < 1, that is R > k sum_j N_j.

    Raises:
        Infeasible: with the missing unique tokens and the largest reachable target.
    """
    caps = repetition_caps(domains, target_tokens, cap)
    if cap is None or np.minimum(caps, 1).sum() >= 1 - 1e-12:
        return
    available = float(domains.tokens.sum())
    largest = math.floor(cap * available)
    missing = math.ceil(target_tokens / cap - available)
    raise Infeasible(
        f"{target_tokens:,.0f} target tokens cannot be reached: {available:,.0f} available tokens at"
        f" most {cap:g} times give {largest:,}; {missing:,} more unique tokens are missing. Lower the target"
        f" to {largest:,}, raise the repetition cap to {target_tokens / available:.2f}, or add data",
        field="target_tokens",
        missing_tokens=missing,
        largest_target=largest,
    )


def _check_positive(field: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidSetting(f"{field} is {value}; it must be a number above 0", field=field)
