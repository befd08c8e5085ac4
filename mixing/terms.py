"""The terms of a question: every number and name of it that does not depend on the domains.

They are declared here and nowhere else. A request fills them by name, the store keeps them as they are, and a
`mixing.question.Question` is these terms for counted domains.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mixing.document import OLDER
from mixing.errors import InvalidSetting, NeverMet, NotHeeded
from mixing.methods import Recipe, combine, method_named
from mixing.parts import SOLVERS

KLUnit = Literal["spread", "metric"]
"""What lambda is counted in: `mixing.objective.USUAL_SPREAD`s of the objective's spread, or its own unit."""
STRENGTHS = (0.1, 5.0)
"""Olmix's range of s: most draws are nearly all one source, which 3(m + 1) long runs of a large proxy can use."""


@dataclass(frozen=True)
class TaskGuard:
    """What no mixture may cost a task; one of the bounds, in the unit the task is measured in.

    Attributes:
        task: its name.
        at_most: largest predicted metric, of a task that is better when lower.
        worse_than_natural: by how much the prediction may be worse than that of the natural distribution.
        at_least: smallest predicted metric, of a task that is better when higher.

    >>> TaskGuard("reading", worse_than_natural=0.01).name
    'guard rail of reading to natural'
    """

    task: str
    at_most: float | None = None
    worse_than_natural: float | None = None
    at_least: float | None = None

    def check_direction(self, higher: bool) -> None:
        """Raise InvalidSetting, naming the bound, for one that a task better when higher (or lower) cannot have."""
        wrong, right = ("at_most", "at_least") if higher else ("at_least", "at_most")
        if getattr(self, wrong) is not None:
            raise InvalidSetting(
                f"{self.task!r} is better when {'higher' if higher else 'lower'}, so its guard rail is {right} or"
                f" worse_than_natural, not {wrong}",
                field=wrong,
                names=[self.task],
            )

    @property
    def name(self) -> str:
        """What tells it from caps and shares, which may be called like the task, and from the task's other rail."""
        against = "" if self.worse_than_natural is None else " to natural"
        return f"guard rail of {self.task}{against}"

    def __post_init__(self) -> None:
        bounds = (self.at_most, self.at_least, self.worse_than_natural)
        given = [bound for bound in bounds if bound is not None]
        if len(given) != 1:
            raise InvalidSetting(
                f"the guard rail of {self.task!r} needs one of at_most, at_least and worse_than_natural",
                field="guard_rails",
                names=[self.task],
            )
        if not math.isfinite(given[0]):
            raise InvalidSetting(
                f"the guard rail of {self.task!r} must be a finite number",
                field="guard_rails",
                names=[self.task],
            )


@dataclass(frozen=True)
class Target:
    """The training run the mixture is for, which is what the answer is to speak of.

    Attributes:
        parameters: of its model, its embeddings not counted, as those of the proxies.
        tokens: that it trains.

    Raises:
        InvalidSetting: a number that is not above 0.
    """

    parameters: float
    tokens: float

    def __post_init__(self) -> None:
        for name in ("parameters", "tokens"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise InvalidSetting(
                    f"the target's {name} are {value}; they must be a number above 0", field="target"
                )


@dataclass(frozen=True)
class StopRule:
    """When further runs are not worth training (`mixing.answer.regret`); either part stops by itself.

    Attributes:
        expected_regret: what the proposed mixture may be expected to give away, in the objective's unit.
        noise: whether it is enough to give away less than a run with another seed differs by.

    Raises:
        InvalidSetting: neither part.
        NeverMet: an expected regret that is not above 0, which nothing falls below.
    """

    expected_regret: float | None = None
    noise: bool = False

    def __post_init__(self) -> None:
        if self.expected_regret is None and not self.noise:
            raise InvalidSetting(
                "a rule to stop by names an expected_regret, the noise, or both", field="stop_when"
            )
        if self.expected_regret is not None and not 0 < self.expected_regret < math.inf:
            raise NeverMet(
                f"the expected regret to stop at is {self.expected_regret}, and none falls below 0: give a number"
                " above 0 in the objective's unit, or stop by the noise",
                field="stop_when.expected_regret",
            )


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is asked for, whatever the domains are.

    Attributes:
        method: its name.
        recipe: the method's parts where some were replaced; None for the method's own.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        guard_rails: what no mixture may cost a task.
        seed: non-negative; the same question gives the same answer.
        rounds: how many runs each round of the swarm trains.
        kl_weight: lambda of the KL term to the natural distribution.
        kl_unit: what it is counted in. Per `spread` it means the same for every metric: it is in the objective's unit
            where that varies by .2 over the runs, as BPB does, and in proportion to what it varies by elsewhere.
        repetition_price: what a share of the training run's tokens that repetition wastes costs, in the metric's unit
            (`mixing.solve.problem.RepetitionCost`); beside the cap, or instead of it.
        strengths: lowest and highest strength of the Dirichlet draws; stronger is closer to the natural
            distribution, where a law needs to be right and few runs must do.
        temperature: exponent tau of the method `temperature`; None is 0.5.
        target: the training run as a model and its tokens, for a prediction of what it gains; None for one of what
            a proxy would gain.
        prefer: "natural", or the mixture by domain, to which the answer is to be as near as the runs leave open
            (`mixing.answer.decision`); None for the best as predicted.
        stop_when: when no further round is trained; None for never before the last.

    Raises:
        InvalidSetting: a negative seed, strengths that do not rise from above 0, no such unit, or a preference
            that is neither.
    """

    method: str = "mixwright"
    recipe: Recipe | None = None
    target_tokens: float
    repetition_cap: float | None = 4.0
    guard_rails: tuple[TaskGuard, ...] = ()
    seed: int = 0
    rounds: tuple[int, ...] = ()
    kl_weight: float = 0.0
    kl_unit: KLUnit = field(default="spread", metadata={OLDER: "metric"})
    repetition_price: float = 0.0
    strengths: tuple[float, float] = STRENGTHS
    temperature: float | None = None
    target: Target | None = None
    prefer: str | Mapping[str, float] | None = None
    stop_when: StopRule | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidSetting(f"the seed is {self.seed}; it must be at least 0", field="seed")
        if self.kl_unit not in get_args(KLUnit):
            raise InvalidSetting(
                f"kl_unit is {self.kl_unit!r}; it is one of {', '.join(map(repr, get_args(KLUnit)))}",
                field="kl_unit",
            )
        if isinstance(self.prefer, str) and self.prefer != "natural":
            raise InvalidSetting(
                f"prefer is {self.prefer!r}; it is 'natural' or a mixture, the weight of each domain",
                field="prefer",
            )
        lowest, highest = self.strengths
        if not 0 < lowest <= highest < math.inf:
            raise InvalidSetting(
                f"the strengths are {lowest} to {highest}; they must rise from above 0", field="strengths"
            )

    @property
    def parts(self) -> Recipe:
        """The recipe; InvalidSetting where the method trains no runs."""
        return self.recipe or combine(method_named(self.method))


def check_heeded(recipe: Recipe, **given: object) -> None:
    """Refuse what the recipe's solver would pass over in silence.

    Args:
        recipe: whose solver it is.
        given: shares, guard rails and weights by the name to blame; what is empty, 0 or None asks for nothing.

    Raises:
        NotHeeded: naming the first.
    """
    solver = SOLVERS[recipe.solver]
    if solver.respects_constraints:
        return
    for name, value in given.items():
        if value:
            raise NotHeeded(
                f"the solver {solver.name!r} knows repetition caps only and would ignore {name}; leave it out, or"
                " ask for another solver, such as 'search'",
                field=name,
            )


@dataclass(frozen=True)
class ReusePlan:
    """What is frozen, trained and reused, and why: what planning comes to, and an optimization stores.

    Attributes:
        kind: full, partial or none: what `auto` came to.
        why: in sentences.
        recomputed: names of the domains that are searched by themselves.
        groups: as `Reuse.groups`.
        virtual_caps: `{virtual domain: its derived cap}`.
        binding_members: `{virtual domain: the member that sets its cap}`.
        reused: `{run id: why it counts}`.
        set_aside: `{run id: why it does not}`.
        new_runs: how many are to be trained.
        least_new_runs: how few of them will do for a law.
        recompute_runs: how many recomputing everything would train.
        new_seconds: worker seconds of the new runs, where known.
        recompute_seconds: of recomputing everything.
        lost: what is given up, in sentences.
    """

    kind: str = "none"
    why: tuple[str, ...] = ()
    recomputed: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    virtual_caps: Mapping[str, float] = field(default_factory=dict)
    binding_members: Mapping[str, str] = field(default_factory=dict)
    reused: Mapping[str, str] = field(default_factory=dict)
    set_aside: Mapping[str, str] = field(default_factory=dict)
    new_runs: int = 0
    least_new_runs: int = 0
    recompute_runs: int = 0
    new_seconds: float | None = None
    recompute_seconds: float | None = None
    lost: tuple[str, ...] = ()

    @property
    def is_renormalised(self) -> bool:
        """Whether nothing is left to search and nothing to learn: every domain keeps its ratio to every other."""
        return not self.recomputed and len(self.groups) == 1 and self.new_runs == 0
