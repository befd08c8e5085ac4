"""The methods (`methods.json`): which sampler, regression, granularity and solver make up each, with its defaults.

Every part can be combined with every other (`combine`); a combination that makes no sense is refused with the
reason. What a part is, and where each kind has its catalogue, is in `mixing.parts`.
"""

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from mixing.document import from_document
from mixing.errors import InvalidSetting, TooFewRuns, UnknownMethod
from mixing.parts import GRANULARITIES, REGRESSIONS, SAMPLERS, SOLVERS, Part, index


@dataclass(frozen=True)
class Recipe:
    """What a method is made of; each field is the name of a part in the catalogue of its kind.

    Attributes:
        sampler: how the swarm is drawn.
        regression: the law fitted to its runs.
        granularity: what one law is fitted to: every task, every family's mean, or the objective.
        solver: how the mixture is found.
    """

    sampler: str
    regression: str
    granularity: str
    solver: str

    def __post_init__(self) -> None:
        for field, known in (
            ("sampler", SAMPLERS),
            ("regression", REGRESSIONS),
            ("granularity", GRANULARITIES),
            ("solver", SOLVERS),
        ):
            if (name := getattr(self, field)) not in known:
                raise InvalidSetting(
                    f"there is no {field} {name!r}; there are {', '.join(sorted(known))}", field=field
                )
        _check_combination(self)

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs the regression can be fitted with over so many domains."""
        return REGRESSIONS[self.regression].minimum_runs(domains)


@dataclass(frozen=True)
class RunCount:
    """A number of runs that grows with the number of domains m: per_domain m + constant, rounded."""

    per_domain: float
    constant: float

    def at(self, domains: int) -> int:
        """The number over so many domains."""
        return round(self.per_domain * domains + self.constant)


SPARE_RUNS = 1
"""Beyond what a regression is fitted with: without one to hold out nothing would be known of how well it does."""


@dataclass(frozen=True)
class Method(Part):
    """One way to find a mixture.

    Attributes:
        recipe: its parts, or None for a method that trains no runs.
        runs: default size of the swarm.
        rounds: relative sizes of the rounds the swarm is trained in; later ones are chosen from the earlier.
        repetition_cap: default cap in epochs, or None.
        kl_weight: default lambda of the KL term to the natural distribution.
    """

    recipe: Recipe | None = None
    runs: RunCount = RunCount(0, 0)
    rounds: tuple[float, ...] = (1.0,)
    repetition_cap: float | None = 4.0
    kl_weight: float = 0.0

    @property
    def trains_runs(self) -> bool:
        """Whether the method needs proxy runs at all."""
        return self.recipe is not None

    def default_runs(self, domains: int, recipe: Recipe | None = None) -> int:
        """Runs asked for when the user names no number; 3(m + 1) for Olmix. `recipe` has other parts (`combine`).

        Enough to hold runs out and judge the regression by them.
        """
        recipe = recipe or self.recipe
        if recipe is None:
            return 0
        if (each := SAMPLERS[recipe.sampler].exact_runs(domains)) is not None:
            return len(self.rounds) * each
        return max(self.runs.at(domains), recipe.minimum_runs(domains) + len(self.rounds) - 1 + SPARE_RUNS)

    def in_rounds(self, count: int) -> "Method":
        """The same in another number of rounds: half of the runs in the first, the rest in equal ones."""
        if count == len(self.rounds):
            return self
        return replace(self, rounds=(float(max(count - 1, 1)), *(1.0 for _ in range(count - 1))))

    def split(self, recipe: Recipe, runs: int, domains: int, least: int | None = None) -> tuple[int, ...]:
        """How many of `runs` each round trains; they sum to `runs` and none is empty. No runs are no rounds.

        The first round of a sampler that learns from it has as many as the regression needs.

        Args:
            recipe: the method's, or one with other parts (`combine`).
            runs: of all rounds together.
            domains: m.
            least: fewest of these runs the regression can do with; None for all that it needs over m domains.

        Raises:
            TooFewRuns: fewer than the regression needs and one for every later round.
            InvalidSetting: another number than the sampler's design takes, or one too small for the regression.
        """
        sampler, count = SAMPLERS[recipe.sampler], len(self.rounds)
        if (each := sampler.exact_runs(domains)) is not None:
            if runs != count * each:
                raise InvalidSetting(
                    f"the {recipe.sampler} sampler takes {each} runs a round over {domains} domains,"
                    f" {count * each} in all; {runs} were asked for",
                    field="runs",
                )
            if runs < (needed := recipe.minimum_runs(domains)):
                raise InvalidSetting(
                    f"the {recipe.sampler} sampler takes {runs} runs over {domains} domains, and the regression"
                    f" {recipe.regression!r} needs {needed}; ask for another of the two",
                    field="regression",
                )
            return (each,) * count
        least = recipe.minimum_runs(domains) if least is None else least
        if runs == 0 and least == 0:
            return ()
        first = max(least, 1) if sampler.learns else 1
        if runs < (needed := max(first + count - 1, least)):
            raise TooFewRuns(
                f"{self.title} over {domains} domains needs at least {needed} runs to fit its regression"
                f" ({self.default_runs(domains, recipe)} are usual); {runs} were asked for",
                needed=needed,
                given=runs,
            )
        ends = [0]
        for number in range(1, count + 1):
            share = sum(self.rounds[:number]) / sum(self.rounds)
            least = first if number == 1 else ends[-1] + 1
            ends.append(min(max(round(share * runs), least), runs - (count - number)))
        return tuple(end - start for start, end in pairwise(ends))


def combine(
    method: Method,
    *,
    sampler: str | None = None,
    regression: str | None = None,
    granularity: str | None = None,
    solver: str | None = None,
) -> Recipe:
    """The method's recipe with some of its parts replaced.

    A regression that the method's own solver cannot minimise exactly brings its preferred one with it, unless
    a solver is named.

    Raises:
        InvalidSetting: the method trains no runs, a part is unknown, or two parts cannot be combined.

    >>> combine(METHODS["mixwright"])
    Recipe(sampler='d-optimal', regression='ensemble', granularity='per task', solver='best')
    >>> combine(METHODS["mixwright"], regression="lightgbm").solver
    'mean-of-best'
    """
    if method.recipe is None:
        raise InvalidSetting(f"the method {method.name!r} trains no runs, so it has no parts", field="method")
    parts = {"sampler": sampler, "regression": regression, "granularity": granularity, "solver": solver}
    chosen = {name: value for name, value in parts.items() if value is not None}
    if regression is not None and regression in REGRESSIONS and solver is None:
        part = REGRESSIONS[regression]
        if part.solver is not None:
            chosen["solver"] = part.solver
        elif SOLVERS[method.recipe.solver].for_convex and not part.convex:
            chosen["solver"] = part.preferred_solver
        elif SOLVERS[method.recipe.solver].needs is not None:
            chosen["solver"] = "exact" if part.convex else part.preferred_solver
    return replace(method.recipe, **chosen)


def _check_combination(recipe: Recipe) -> None:
    regression, solver = REGRESSIONS[recipe.regression], SOLVERS[recipe.solver]
    if solver.needs_convex and not regression.convex:
        raise InvalidSetting(
            f"the solver {recipe.solver!r} needs a law that is convex in the mixture, and {recipe.regression!r}"
            f" is not; use {regression.preferred_solver!r}",
            field="solver",
        )
    if solver.needs is not None and solver.needs != recipe.regression:
        raise InvalidSetting(
            f"the solver {recipe.solver!r} is the closed form of the regression {solver.needs!r} and of no other",
            field="solver",
        )
    for field, reason in (
        ("sampler", f"reads the runs of the sampler {regression.sampler!r}, not of {recipe.sampler!r}"),
        ("granularity", f"is fitted {regression.granularity}"),
        ("solver", f"is solved by {regression.solver!r}"),
    ):
        if getattr(regression, field) not in (None, getattr(recipe, field)):
            raise InvalidSetting(f"the regression {recipe.regression!r} {reason}", field=field)
    if SAMPLERS[recipe.sampler].absolute_tokens and not regression.reads_tokens:
        raise InvalidSetting(
            f"the sampler {recipe.sampler!r} changes how much is trained with the mixture, which the regression"
            f" {recipe.regression!r} does not look at",
            field="regression",
        )


_DECLARED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
METHODS = index(*(from_document(Method, method) for method in _DECLARED))
"""By name."""


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownMethod: naming those there are.

    >>> method_named("olmix").default_runs(24)
    75
    """
    if name not in METHODS:
        raise UnknownMethod(
            f"there is no method {name!r}; there are {', '.join(sorted(METHODS))}",
            field="method",
            names=[name],
        )
    return METHODS[name]
