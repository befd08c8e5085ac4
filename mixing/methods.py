"""The methods, as data: which sampler, regression and solver make up each, with its defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mixing.errors import UnknownMethod


@dataclass(frozen=True)
class Method:
    """One way to find a mixture.

    Attributes:
        name: as it is asked for.
        title: as it is shown.
        source: where it is published.
        sampler: how the swarm is drawn, or None for a method that trains no runs.
        regression: the law fitted to the runs, or None.
        granularity: "per task" or "aggregated": what one law is fitted to.
        solver: how the mixture is found.
        repetition_cap: default cap in epochs, or None.
        kl_weight: default lambda of the KL term to the natural distribution.
        extra_runs: runs needed beyond one per domain, for the law's other parameters and one to spare.
        runs_per_parameter: default runs are this many times (m + 1).
    """

    name: str
    title: str
    source: str
    sampler: str | None
    regression: str | None
    granularity: str
    solver: str
    repetition_cap: float | None = 4.0
    kl_weight: float = 0.05
    extra_runs: int = 2
    runs_per_parameter: int = 3

    @property
    def trains_runs(self) -> bool:
        """Whether the method needs proxy runs at all."""
        return self.sampler is not None

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs the regression can be fitted with over so many domains.

        The log-linear law has m + 1 parameters (c and a_1..a_m); m + 2 leaves one run to judge it by.
        """
        return domains + self.extra_runs if self.trains_runs else 0

    def default_runs(self, domains: int) -> int:
        """Runs asked for when the user names no number: 3(m + 1) for Olmix."""
        return self.runs_per_parameter * (domains + 1) if self.trains_runs else 0


def _index(*methods: Method) -> Mapping[str, Method]:
    return MappingProxyType({method.name: method for method in methods})


METHODS: Mapping[str, Method] = _index(
    Method(
        name="olmix",
        title="Olmix",
        source="arXiv 2602.12237",
        sampler="two-level Dirichlet",
        regression="log-linear",
        granularity="per task",
        solver="convex",
    ),
    Method(
        name="natural",
        title="Natural distribution",
        source="weights proportional to the available tokens",
        sampler=None,
        regression=None,
        granularity="none",
        solver="natural",
        kl_weight=0.0,
    ),
    Method(
        name="uniform",
        title="Uniform",
        source="equal weights, domains at their cap where it is lower (UniMax, arXiv 2304.09151)",
        sampler=None,
        regression=None,
        granularity="none",
        solver="uniform",
        kl_weight=0.0,
    ),
)


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownMethod: naming those there are.
    """
    if name not in METHODS:
        raise UnknownMethod(
            f"there is no method {name!r}; there are {', '.join(sorted(METHODS))}",
            field="method",
            names=[name],
        )
    return METHODS[name]
