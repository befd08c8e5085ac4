"""Mixtures of the methods that train nothing, in the form of a proposal's document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting
from mixing.methods import method_named
from mixing.mixture import Mixture
from mixing.repetition import epochs, repetition_caps
from mixing.solve import baselines

DEFAULT_TEMPERATURE = 0.5
"""Half way between natural and uniform on the logarithm of the tokens, as RegMix's prior (arXiv 2407.01492)."""
_BINDING = 1e-9


@dataclass(frozen=True)
class BaselineRequest:
    """What a baseline is asked for.

    Attributes:
        method: name of a method that trains no runs.
        domains: m domains with their tokens.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        temperature: exponent tau of the method `temperature`; None is 0.5.
    """

    method: str
    domains: Domains
    target_tokens: float
    repetition_cap: float | None
    temperature: float | None = None

    @property
    def caps(self) -> np.ndarray:
        """(m,) largest weights."""
        return repetition_caps(self.domains, self.target_tokens, self.repetition_cap)


def _temperature(request: BaselineRequest) -> Mixture:
    tau = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
    return baselines.temperature(request.domains, tau, request.caps)


def _unimax(request: BaselineRequest) -> Mixture:
    if request.repetition_cap is None:
        raise InvalidSetting("UniMax is a cap on epochs; give a repetition cap", field="repetition_cap")
    return baselines.unimax(request.domains, request.target_tokens, request.repetition_cap)


_BASELINES: Mapping[str, Callable[[BaselineRequest], Mixture]] = {
    "natural": lambda request: baselines.natural(request.domains, request.caps),
    "uniform": lambda request: baselines.uniform(request.domains, request.caps),
    "temperature": _temperature,
    "unimax": _unimax,
}


def baseline(request: BaselineRequest) -> dict[str, Any]:
    """The document of a mixture nothing was trained for: what it reads of each domain, and nothing predicted.

    Raises:
        UnknownMethod: no such method.
        InvalidSetting: a method that trains runs, or a setting.
        Infeasible: the target cannot be reached under the caps.
    """
    method = method_named(request.method)
    if method.name not in _BASELINES:
        raise InvalidSetting(f"the method {method.name!r} needs proxy runs", field="method")
    return _document(request, _BASELINES[method.name](request).align(request.domains.names))


def renormalised(request: BaselineRequest, ratios: Mapping[str, float]) -> dict[str, Any]:
    """The document of a mixture whose every ratio is kept from an older one: nothing was trained for it anew.

    Args:
        request: its method is the one asked for.
        ratios: `{domain: weight}` of all domains, relative to each other.

    Raises:
        UnknownDomain, MissingDomain: the ratios are not those of the domains.
        Infeasible: a domain would be above its cap.
    """
    domains = request.domains
    total = sum(ratios.values())
    weights = Mixture.of({name: ratio / total for name, ratio in ratios.items()}).align(domains.names)
    if over := [
        name
        for name, weight, cap in zip(domains.names, weights, request.caps, strict=True)
        if weight > cap + _BINDING
    ]:
        raise Infeasible(
            f"with every ratio kept {', '.join(over)} would be read more than {request.repetition_cap:g} times; free"
            " it with reuse 'partial', or lower the target",
            field="reuse",
            names=over,
        )
    return _document(request, weights)


def _document(request: BaselineRequest, weights: np.ndarray) -> dict[str, Any]:
    domains, caps = request.domains, request.caps
    read = epochs(domains, weights, request.target_tokens)
    natural_read = epochs(domains, domains.natural_weights, request.target_tokens)
    binding = (caps < 1) & (weights >= caps * (1 - _BINDING))
    return {
        "weights": dict(zip(domains.names, weights.tolist(), strict=True)),
        "natural": dict(zip(domains.names, domains.natural_weights.tolist(), strict=True)),
        "method": request.method,
        "recipe": None,
        "objective": None,
        "tasks": [],
        "held_out_rank_correlation": None,
        "domains": [
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
        ],
        "constraints": [
            {
                "kind": "repetition_cap",
                "domain": domains.names[j],
                "bound": float(caps[j]),
                "shadow_price": None,
                "statement": f"{domains.names[j]} is read {request.repetition_cap:g} times, its cap.",
            }
            for j in np.flatnonzero(binding)
        ],
        "runs_used": 0,
        "notes": [],
        "warnings": [],
    }
