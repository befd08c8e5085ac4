"""The parts methods are made of, by name: what each is, and what it can be combined with.

The regressions are listed in `mixing.laws.catalogue`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from mixing.errors import InvalidSetting
from mixing.laws.protocol import Regression

HELD_OUT_PREFIX = "held-out/"
"""Before a domain's name: the task that is the domain's own held-out slice."""


@dataclass(frozen=True)
class SamplerPart:
    """How a swarm is drawn.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        source: where it is published.
        absolute_tokens: whether its runs differ in how many tokens they train, not only in their mixture.
        learns: whether rounds after the first are chosen from the metrics of those before.
        reads_entropies: whether it needs the token statistics of the domains.
        exact_per_domain: its design takes this many runs a domain and one more a round; None for any number.
    """

    name: str
    title: str
    source: str
    absolute_tokens: bool = False
    learns: bool = False
    reads_entropies: bool = False
    exact_per_domain: int | None = None

    def exact_runs(self, domains: int) -> int | None:
        """The one number of runs a round of its design has over so many domains, or None for any."""
        return None if self.exact_per_domain is None else self.exact_per_domain * domains + 1


@dataclass(frozen=True)
class FitContext:
    """What a regression may be told besides weights and metrics.

    Attributes:
        tokens: (K,) how much each run trained, in units of a full proxy run.
        rounds: (K,) the round each run was sampled in.
        domains: (m,) names.
        columns: (C,) names of what is fitted.
    """

    tokens: np.ndarray
    rounds: np.ndarray
    domains: tuple[str, ...]
    columns: tuple[str, ...]

    def of(self, runs: np.ndarray) -> "FitContext":
        """That of some of the runs: (K,) booleans, or their positions."""
        return replace(self, tokens=self.tokens[runs], rounds=self.rounds[runs])

    def own_domains(self) -> tuple[int, ...]:
        """(C,) the domain whose held-out slice each column is.

        Raises:
            InvalidSetting: a column that is no domain's held-out slice, named.
        """
        at = {f"{HELD_OUT_PREFIX}{name}": column for column, name in enumerate(self.domains)}
        if strangers := sorted(set(self.columns) - set(at)):
            raise InvalidSetting(
                f"a law of each domain's own share predicts held-out slices, not {', '.join(strangers)}",
                field="tasks",
                names=strangers,
            )
        return tuple(at[name] for name in self.columns)


@dataclass(frozen=True)
class RegressionPart:
    """A family of laws.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        source: where it is published.
        make: the regression with its default settings.
        runs_per_domain: with `runs_beyond`, fewest runs over m domains: runs_per_domain m + runs_beyond, rounded up.
        runs_beyond: see above.
        convex: whether it is convex in the mixture, so that it can be minimised exactly.
        sampler: the one sampler whose runs it reads, or None for any.
        solver: the one solver that reads it, or None for any.
        preferred_solver: what it is given where the method's own solver needs a convex law and it is none.
        granularity: the one granularity it is fitted at, or None for any.
        reads_tokens: whether it looks at how much each run trained.
        reads_own_domain: whether each of its tasks is the held-out slice of one domain, and it reads that
            domain's weight only.
        positive: whether it needs metrics above 0.
        offered: whether it is named as a way out where there are too few runs for another.
        repeats: how often its cross-validation is repeated over other folds.
    """

    name: str
    title: str
    source: str
    make: Callable[[FitContext], Regression]
    runs_per_domain: float
    runs_beyond: int
    convex: bool = False
    sampler: str | None = None
    solver: str | None = None
    preferred_solver: str = "search"
    granularity: str | None = None
    reads_tokens: bool = False
    reads_own_domain: bool = False
    positive: bool = False
    offered: bool = True
    repeats: int = 2

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs it can be fitted with over so many domains."""
        return -int(-self.runs_per_domain * domains // 1) + self.runs_beyond


@dataclass(frozen=True)
class SolverPart:
    """How the mixture is found.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
        source: where it is published.
        needs_convex: whether the regression must be convex.
        needs: the one regression it is the closed form of, or None.
        respects_constraints: whether it can take group shares and pins beyond caps.
    """

    name: str
    title: str
    source: str
    needs_convex: bool = False
    needs: str | None = None
    respects_constraints: bool = True


@dataclass(frozen=True)
class Granularity:
    """What one law is fitted to.

    Attributes:
        name: as it is asked for.
        title: what it is, in a few words.
    """

    name: str
    title: str


_Part = TypeVar("_Part", SamplerPart, RegressionPart, SolverPart, Granularity)


def index(*parts: _Part) -> Mapping[str, _Part]:
    """The parts by name."""
    return MappingProxyType({part.name: part for part in parts})


SAMPLERS: Mapping[str, SamplerPart] = index(
    SamplerPart("two-level-dirichlet", "Dirichlet over sources, then over topics", "Olmix, arXiv 2602.12237"),
    SamplerPart(
        "tempered-dirichlet", "Dirichlet around the square root of the prior", "RegMix, arXiv 2407.01492"
    ),
    SamplerPart("exponential-grid", "powers of one half of each domain's largest share", "arXiv 2403.16952"),
    SamplerPart(
        "perturbation",
        "each domain's tokens times 3 and times 1/3",
        "AutoScale, arXiv 2407.20177",
        absolute_tokens=True,
        exact_per_domain=2,
    ),
    SamplerPart("entropy", "softmax over four entropies", "BiMix, arXiv 2405.14908", reads_entropies=True),
    SamplerPart("d-optimal", "the two-level draws that tell a law most together", "Fedorov 1972"),
    SamplerPart(
        "maximin", "the two-level draws farthest from each other", "Johnson, Moore and Ylvisaker 1990"
    ),
    SamplerPart(
        "predicted-best", "Dirichlet, then near the predicted best", "CLIMB, 2504.13161", learns=True
    ),
    SamplerPart(
        "acquisition",
        "Dirichlet on short runs, then by expected improvement per token",
        "ADMIRE-BayesOpt",
        absolute_tokens=True,
        learns=True,
    ),
)


GRANULARITIES: Mapping[str, Granularity] = index(
    Granularity("per task", "one law a task"),
    Granularity("per family", "one law for the mean of each family"),
    Granularity("aggregated", "one law for the objective"),
)

SOLVERS: Mapping[str, SolverPart] = index(
    SolverPart("exact", "certified minimum of a convex law", "Boyd and Vandenberghe 2004", needs_convex=True),
    SolverPart("search", "refined search from many starts", "ours"),
    SolverPart(
        "mean-of-best",
        "mean of the 128 best of 100,000 draws",
        "RegMix, arXiv 2407.01492",
    ),
    SolverPart(
        "predicted-best",
        "best predicted of fresh candidates",
        "CLIMB, arXiv 2504.13161",
    ),
    SolverPart(
        "posterior-mean",
        "best posterior mean at full fidelity",
        "ADMIRE-BayesOpt",
    ),
    SolverPart(
        "extrapolated-closed-form",
        "closed form at two budgets, extrapolated to the target",
        "AutoScale, arXiv 2407.20177",
        needs="autoscale-budgets",
        respects_constraints=False,
    ),
)
