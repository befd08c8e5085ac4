"""Mixwright as a library: the mathematics of data mixtures, and a client of the service.

    import mixwright

    domains = mixwright.Domains.of({"web:news": 5e9, "code": 1e9, "wiki": 1e8})
    with mixwright.Client("http://127.0.0.1:8321", token) as client:
        mixture = client.mixture("mix_1")

What is named here is loaded when it is first used, so ``import mixwright`` itself costs nothing. The packages behind
it (`mixing`, `service`, ...) have names of their own.
"""

import importlib
import importlib.metadata
from typing import Any

_NAMES = {
    "Changes": "mixing.change.revision",
    "Leaf": "mixing.change.revision",
    "diff": "mixing.change.diff",
    "Blend": "exchange.formats",
    "export": "exchange.formats",
    "export_schedule": "exchange.formats",
    "fit": "exchange.fit",
    "Domains": "mixing.domains",
    "Mixture": "mixing.domains",
    "METHODS": "mixing.methods",
    "combine": "mixing.methods",
    "method_named": "mixing.methods",
    "propose": "mixing.answer.proposal",
    "sample_round": "mixing.swarm.sample",
    "share_of": "mixing.solve.constraints",
    "ApiError": "service.client",
    "Client": "service.client",
    "Unreachable": "service.client",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("mixwright")
    if name not in _NAMES:
        raise AttributeError(f"mixwright has no {name!r}; it has {', '.join(sorted(_NAMES))}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *sorted(_NAMES)]
