"""What a part of a method is; each kind has one catalogue, whose entries describe a part and say where its code is.

The samplers are in `mixing.swarm.catalogue`, the regressions in `mixing.laws.catalogue`, the solvers in
`mixing.solve.catalogue`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar

HELD_OUT_PREFIX = "held-out/"
"""Before a domain's name: the task that is the domain's own held-out slice."""


@dataclass(frozen=True)
class Part:
    """What every part says of itself.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        source: where it is published.
    """

    name: str
    title: str
    source: str = "ours"


_Part = TypeVar("_Part", bound=Part)


def index(*parts: _Part) -> Mapping[str, _Part]:
    """The parts by name."""
    return MappingProxyType({part.name: part for part in parts})


def lazy(path: str) -> Callable[..., Any]:
    """The function at `package.module:name`, or a class's at `package.module:Class.name`, imported when it is called.

    A process that only checks requests by the descriptions then loads neither LightGBM nor scikit-learn.
    """
    module, _, name = path.partition(":")

    def call(*arguments: Any) -> Any:
        return attrgetter(name)(import_module(module))(*arguments)

    return call


GRANULARITIES: Mapping[str, Part] = index(
    Part("per task", "one law a task", "Olmix, arXiv 2602.12237"),
    Part("per family", "one law for the mean of each family"),
    Part("aggregated", "one law for the objective", "RegMix, arXiv 2407.01492"),
)
"""What one law is fitted to."""
