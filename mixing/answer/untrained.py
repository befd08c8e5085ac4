"""Mixtures nobody trains anything for, to compare with: natural, uniform, temperature, UniMax.

Each is asked for under caps (`mixing.limits`). Only UniMax is published with one. The others are filled up like
water: all weights grow by one factor, a domain that reaches its cap stays there, and so the ratios between domains
below their caps are those without caps.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mixing.capped_simplex import settle, water_fill
from mixing.domains import Mixture
from mixing.errors import Infeasible, InvalidSetting
from mixing.limits import Limits
from mixing.methods import method_named
from mixing.question import Question

DEFAULT_TEMPERATURE = 0.5
"""Half way between natural and uniform on the logarithm of the tokens, as RegMix's prior (arXiv 2407.01492)."""


def natural(limits: Limits) -> Mixture:
    """Weights proportional to the available tokens N_j.

    Under caps of one number of epochs they are the same, since every domain is then read equally often.

    Raises:
        Infeasible: the target cannot be reached.
    """
    return _under(limits, limits.domains.natural_weights)


def uniform(limits: Limits) -> Mixture:
    """The same weight for every domain; under caps, UniMax.

    Raises:
        Infeasible: the target cannot be reached.
    """
    return _under(limits, np.full(len(limits.domains), 1 / len(limits.domains)))


def temperature(limits: Limits, tau: float | None = None) -> Mixture:
    """Weights proportional to N_j^tau: 1 is natural, 0 uniform; 1/T for a temperature T. None is 0.5.

    Raises:
        InvalidSetting: tau is not finite.
        Infeasible: the target cannot be reached.
    """
    tau = DEFAULT_TEMPERATURE if tau is None else tau
    if not math.isfinite(tau):
        raise InvalidSetting(f"tau is {tau}; it must be a finite number", field="tau")
    exponents = tau * np.log(limits.domains.tokens)
    weights = np.exp(exponents - exponents.max())
    return _under(limits, weights / weights.sum())


def unimax(limits: Limits) -> Mixture:
    """As uniform as the cap allows (UniMax, arXiv 2304.09151).

    As published the smallest domain comes first, and each gets an equal share of the budget that is left, or as much
    as its cap allows where that is less: that is the uniform mixture, filled up under its caps. The paper spends less
    than the budget where all domains are at their caps; here such a budget is refused, because weights that sum to 1
    would read every domain more often than was asked for.

    Raises:
        InvalidSetting: there is no cap.
        Infeasible: the target cannot be reached.
    """
    if limits.repetition_cap is None:
        raise InvalidSetting("UniMax is a cap on epochs; give a repetition cap", field="repetition_cap")
    return uniform(limits)


def _under(limits: Limits, weights: np.ndarray) -> Mixture:
    if limits.repetition_cap is None:
        return limits.domains.mixture(weights)
    limits.check()
    caps = limits.separate_caps
    filled = water_fill(weights, caps)
    # A weight too small for a float is zero, and what the others cannot hold has nowhere else to go.
    if filled.sum() < 1 - 1e-9:
        raise Infeasible(
            "the domains with a weight cannot hold the whole mixture under their caps", field="caps"
        )
    return limits.domains.mixture(settle(filled, caps))


_BASELINES: Mapping[str, Callable[[Question], Mixture]] = {
    "natural": lambda question: natural(question.limits),
    "uniform": lambda question: uniform(question.limits),
    "temperature": lambda question: temperature(question.limits, question.temperature),
    "unimax": lambda question: unimax(question.limits),
}


def baseline(question: Question) -> dict[str, Any]:
    """The document of a mixture nothing was trained for: what it reads of each domain, and nothing predicted.

        baseline(Question(method="natural", domains=domains, target_tokens=4e9))["weights"]

    Raises:
        UnknownMethod: no such method.
        InvalidSetting: a method that trains runs, or a setting.
        Infeasible: the target cannot be reached under the caps.
    """
    method = method_named(question.method)
    if method.name not in _BASELINES:
        raise InvalidSetting(f"the method {method.name!r} needs proxy runs", field="method")
    return _document(question, _BASELINES[method.name](question).align(question.domains.names))


def renormalised(question: Question, ratios: Mapping[str, float]) -> dict[str, Any]:
    """The document of a mixture whose every ratio is kept from an older one: nothing was trained for it anew.

    Args:
        question: its method is the one asked for.
        ratios: `{domain: weight}` of all domains, relative to each other.

    Raises:
        UnknownDomain, MissingDomain: the ratios are not those of the domains.
        Infeasible: a domain would be above its cap.
    """
    names, total = question.domains.names, sum(ratios.values())
    weights = Mixture.of({name: ratio / total for name, ratio in ratios.items()}).align(names)
    exceeded = question.limits.exceeded(weights)
    if over := [name for name, above in zip(names, exceeded, strict=True) if above]:
        raise Infeasible(
            f"with every ratio kept {', '.join(over)} would be read more than {question.repetition_cap:g} times; free"
            " it with reuse 'partial', or lower the target",
            field="reuse",
            names=over,
        )
    return _document(question, weights)


def domain_rows(limits: Limits, weights: np.ndarray) -> list[dict[str, Any]]:
    """What a mixture does with each domain, as documents have it; nothing is known of what its caps cost."""
    domains, caps, binding = limits.domains, limits.caps, limits.binding(weights)
    read, natural_read = limits.epochs(weights), limits.epochs(domains.natural_weights)
    return [
        {
            "name": name,
            "tokens": float(domains.tokens[j]),
            "weight": float(weights[j]),
            "natural": float(domains.natural_weights[j]),
            "cap": float(caps[j]) if caps[j] < 1 else None,
            "epochs": float(read[j]),
            "natural_epochs": float(natural_read[j]),
            "binding": bool(binding[j]),
            "shadow_price": None,
        }
        for j, name in enumerate(domains.names)
    ]


def cap_row(question: Question, row: Mapping[str, Any], worth: str = "") -> dict[str, Any]:
    """A repetition cap that binds, of one of `domain_rows`, with what more tokens would be worth."""
    return {
        "kind": "repetition_cap",
        "domain": row["name"],
        "bound": row["cap"],
        "shadow_price": row["shadow_price"],
        "statement": f"{row['name']} is read {question.repetition_cap:g} times, its cap{worth}.",
    }


def _document(question: Question, weights: np.ndarray) -> dict[str, Any]:
    rows = domain_rows(question.limits, weights)
    return {
        "weights": {row["name"]: row["weight"] for row in rows},
        "natural": {row["name"]: row["natural"] for row in rows},
        "method": question.method,
        "recipe": None,
        "objective": None,
        "tasks": [],
        "worse": [],
        "held_out_rank_correlation": None,
        "domains": rows,
        "constraints": [cap_row(question, row) for row in rows if row["binding"]],
        "runs_used": 0,
        "notes": [],
        "warnings": [],
    }
