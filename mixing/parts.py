"""The parts methods are made of: samplers, regressions, solvers and granularities, by name.

What a part is, what it can be combined with and where its code is stands in `parts.toml`, an entry a part. Its code
is imported when it is called: a process that only checks requests loads neither LightGBM nor scikit-learn.
Any regressor of scikit-learn is a regression too, by the name `sklearn:` and its class: `sklearn:KernelRidge`.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mixing.laws.regression import Regression
    from mixing.runs.table import RunTable
    from mixing.solve.solution import Solution
    from mixing.solve.solvers import FittedQuestion
    from mixing.swarm.sample import Round, SampledRun


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


def _lazy(path: str) -> Callable[..., Any]:
    """The function at `package.module:name` or a class's at `package.module:Class.name`, imported when called."""
    module, _, name = path.partition(":")

    def call(*arguments: Any) -> Any:
        return attrgetter(name)(import_module(module))(*arguments)

    return call


_DECLARED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def _declared(kind: type[_Part], section: str, code: str) -> Mapping[str, _Part]:
    """The parts of a section, whose member `code` says where theirs is."""
    entries = _DECLARED[section].items()
    return index(*(kind(**{"name": name, **entry, code: _lazy(entry[code])}) for name, entry in entries))


@dataclass(frozen=True, kw_only=True)
class SamplerPart(Part):
    """How a swarm is drawn.

    Attributes:
        draw: the runs of a round.
        absolute_tokens: whether its runs differ in how many tokens they train, not only in their mixture.
        learns: whether rounds after the first are chosen from the metrics of those before.
        reads_entropies: whether it needs the token statistics of the domains.
        exact_per_domain: its design takes this many runs a domain and one more a round; None for any number.
    """

    draw: Callable[["Round"], tuple["SampledRun", ...]]
    absolute_tokens: bool = False
    learns: bool = False
    reads_entropies: bool = False
    exact_per_domain: int | None = None

    def exact_runs(self, domains: int) -> int | None:
        """The one number of runs a round of its design has over so many domains, or None for any."""
        return None if self.exact_per_domain is None else self.exact_per_domain * domains + 1


@dataclass(frozen=True, kw_only=True)
class RegressionPart(Part):
    """A family of laws.

    Attributes:
        make: the regression with its default settings.
        runs_per_domain: with `runs_beyond`, fewest runs of a proposal: runs_per_domain m + runs_beyond, rounded up.
        runs_beyond: see above.
        convex: whether it is convex in the mixture, so that it can be minimised exactly.
        sampler: the one sampler whose runs it reads, or None for any.
        solver: the one solver that reads it, or None for any.
        preferred_solver: what it is given where the method's own solver needs a convex law and it is none.
        granularity: the one granularity it is fitted at, or None for any.
        tasks_by: the regression of the tasks alone, which then only show what gets worse; None for this one. Of one
            that is fitted to the objective.
        reads_tokens: whether it looks at how much each run trained.
        reads_own_domain: whether each of its tasks is the held-out slice of one domain, and it reads that
            domain's weight only.
        positive: whether it needs metrics above 0.
        offered: whether it is named as a way out where there are too few runs for another.
        repeats: how often its cross-validation is repeated over other folds.
    """

    make: Callable[["RunTable"], "Regression"]
    runs_per_domain: float = 1
    runs_beyond: int = 2
    convex: bool = False
    sampler: str | None = None
    solver: str | None = None
    preferred_solver: str = "search"
    granularity: str | None = None
    tasks_by: str | None = None
    reads_tokens: bool = False
    reads_own_domain: bool = False
    positive: bool = False
    offered: bool = True
    repeats: int = 2

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs of a proposal over so many domains: those a law is fitted to, and a fold to judge it by."""
        return -int(-self.runs_per_domain * domains // 1) + self.runs_beyond


class _Regressions(Mapping[str, RegressionPart]):
    """The catalogue, and any regressor of scikit-learn when it is asked for; those are not listed."""

    def __init__(self, parts: Mapping[str, RegressionPart]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> RegressionPart:
        prefix, _, estimator = name.partition(":")
        if prefix != "sklearn":
            return self._parts[name]
        from mixing.laws.scikit_learn import regressor_named

        regression = regressor_named(estimator)
        return RegressionPart(
            name=name,
            title=f"{estimator} of scikit-learn, with its default settings",
            source="Pedregosa et al. 2011",
            make=lambda _: regression,
            runs_per_domain=0,
            runs_beyond=12,
            preferred_solver="mean-of-best",  # of an unknown shape, which a search may exploit
            offered=False,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


@dataclass(frozen=True, kw_only=True)
class SolverPart(Part):
    """How the mixture is found.

    Attributes:
        solve: the mixture of a question.
        needs_convex: whether the regression must be convex.
        for_convex: whether it is meant for one that is or may be; another brings its preferred solver along.
        needs: the one regression it is the closed form of, or None.
        respects_constraints: whether it can take group shares and pins beyond caps.
    """

    solve: Callable[["FittedQuestion"], "Solution"]
    needs_convex: bool = False
    for_convex: bool = False
    needs: str | None = None
    respects_constraints: bool = True


SAMPLERS = _declared(SamplerPart, "samplers", "draw")
REGRESSIONS: Mapping[str, RegressionPart] = _Regressions(_declared(RegressionPart, "regressions", "make"))
SOLVERS = _declared(SolverPart, "solvers", "solve")
GRANULARITIES: Mapping[str, Part] = index(
    Part("per task", "one law a task", "Olmix, arXiv 2602.12237"),
    Part("per family", "one law for the mean of each family"),
    Part("aggregated", "one law for the objective", "RegMix, arXiv 2407.01492"),
)
"""What one law is fitted to."""
