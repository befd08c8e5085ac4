"""Mixtures nobody trained anything for, to compare with: natural, uniform, temperature, UniMax.

Each can be asked for under caps (p_j <= k N_j / R, `mixing.repetition.repetition_caps`). Only UniMax is published
with one. The others are filled up like water: all weights grow by one factor, a domain that reaches its cap stays
there, and so the ratios between domains below their caps are those without caps.
"""

import math

import numpy as np

from mixing.capped_simplex import check_caps, settle, water_fill
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting
from mixing.mixture import Mixture
from mixing.repetition import check_target_reachable, repetition_caps


def natural(domains: Domains, caps: np.ndarray | None = None) -> Mixture:
    """Weights proportional to the available tokens N_j.

    Under caps of one number of epochs they are the same, since every domain is then read equally often.

    Raises:
        Infeasible: the (m,) caps sum to less than 1.
    """
    return _under(domains, domains.natural_weights, caps)


def uniform(domains: Domains, caps: np.ndarray | None = None) -> Mixture:
    """The same weight for every domain; under caps, UniMax.

    Raises:
        Infeasible: the (m,) caps sum to less than 1.
    """
    return _under(domains, np.full(len(domains), 1 / len(domains)), caps)


def temperature(domains: Domains, tau: float, caps: np.ndarray | None = None) -> Mixture:
    """Weights proportional to N_j^tau: 1 is natural, 0 uniform; 1/T for a temperature T.

    Raises:
        InvalidSetting: tau is not finite.
        Infeasible: the (m,) caps sum to less than 1.
    """
    if not math.isfinite(tau):
        raise InvalidSetting(f"tau is {tau}; it must be a finite number", field="tau")
    exponents = tau * np.log(domains.tokens)
    weights = np.exp(exponents - exponents.max())
    return _under(domains, weights / weights.sum(), caps)


def unimax(domains: Domains, target_tokens: float, epochs: float) -> Mixture:
    """As uniform as `epochs` allows (UniMax, arXiv 2304.09151).

    The smallest domain first, each gets an equal share of the budget that is left, or `epochs` times its tokens
    where that is less. The paper spends less than the budget where all domains are at their caps; here such a budget
    is refused, because weights that sum to 1 would read every domain more often than was asked for.

    Args:
        domains: m domains with their tokens.
        target_tokens: R, the budget.
        epochs: k, most often a domain may be read.

    Raises:
        InvalidSetting: a target or cap that is not positive and finite.
        Infeasible: the budget is larger than `epochs` times all tokens.
    """
    check_target_reachable(domains, target_tokens, epochs)
    caps = repetition_caps(domains, target_tokens, epochs)
    weights, left = np.zeros(len(domains)), 1.0
    order = np.argsort(domains.tokens, kind="stable").tolist()
    for rank, j in enumerate(order):
        weights[j] = min(caps[j], left / (len(order) - rank))
        left -= weights[j]
    return domains.mixture(settle(weights, caps))


def _under(domains: Domains, weights: np.ndarray, caps: np.ndarray | None) -> Mixture:
    if caps is None:
        return domains.mixture(weights)
    check_caps(caps)
    filled = water_fill(weights, caps)
    # A weight too small for a float is zero, and what the others cannot hold has nowhere else to go.
    if filled.sum() < 1 - 1e-9:
        raise Infeasible(
            "the domains with a weight cannot hold the whole mixture under their caps", field="caps"
        )
    return domains.mixture(settle(filled, caps))
