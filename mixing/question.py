"""What a mixture is asked for, and the mathematical problem it becomes once a law is fitted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mixing.domains import Domains
from mixing.errors import InvalidMetrics, InvalidSetting
from mixing.laws.protocol import Fitted
from mixing.methods import Recipe, combine, method_named
from mixing.objective import ObjectiveSpec, objective_of_tasks
from mixing.parts import HELD_OUT_PREFIX
from mixing.repetition import check_target_reachable, repetition_caps
from mixing.reuse.reuse import NOTHING_REUSED, Reuse, check_reusable
from mixing.runs.evidence import RunEvidence
from mixing.simplex_map import SimplexMap
from mixing.solve.catalogue import SOLVERS
from mixing.solve.conflicts import linear_conflict
from mixing.solve.feasibility import is_feasible
from mixing.solve.linear_system import LinearSystem
from mixing.solve.problem import GuardRail, LinearConstraint, MixtureProblem, Objective, TaskMean, check_names
from mixing.solve.repetition_cost import RepetitionCost

if TYPE_CHECKING:  # importing what fits regressions would slow down a process that only checks requests
    from mixing.laws.fitting import Columns


@dataclass(frozen=True)
class TaskGuard:
    """What no mixture may cost a task; one of the bounds, in the unit the task is measured in.

    Attributes:
        task: its name.
        at_most: largest predicted metric, of a task that is better when lower.
        worse_than_natural: by how much the prediction may be worse than that of the natural distribution.
        at_least: smallest predicted metric, of a task that is better when higher.
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
        return (
            f"guard rail of {self.task}"
            if self.worse_than_natural is None
            else f"guard rail of {self.task} to natural"
        )

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
class ProposalRequest:
    """What a mixture is asked for.

    Attributes:
        method: name of a method that trains runs.
        domains: m domains with their tokens.
        runs: the finished runs, in any order.
        objective: `{task: weight}`, or a specification with families; lower metrics are better.
        target_tokens: R, the size of the training run the mixture is for.
        repetition_cap: k epochs, or None for no cap.
        kl_weight: lambda of the KL term to the natural distribution.
        seed: non-negative; the same request gives the same answer.
        recipe: the method's parts where some were replaced; None for the method's own.
        constraints: shares and pins.
        guard_rails: what no mixture may cost a task.
        repetition_price: what a share of the training run's tokens that repetition wastes costs, in the metric's unit
            (`mixing.solve.repetition_cost`); beside the cap, or instead of it.
        proxy_tokens: what a full proxy run trains, for a method that extrapolates from there to the target.
        reuse: the ratios to keep and the runs of older revisions to count.

    Raises:
        InvalidSetting: a negative seed, proxy tokens that are not positive, what the solver takes no account of, or
            a reuse that the recipe cannot make.
    """

    method: str
    domains: Domains
    runs: tuple[RunEvidence, ...]
    objective: Mapping[str, float] | ObjectiveSpec
    target_tokens: float
    repetition_cap: float | None
    kl_weight: float
    seed: int
    recipe: Recipe | None = None
    constraints: tuple[LinearConstraint, ...] = ()
    guard_rails: tuple[TaskGuard, ...] = ()
    repetition_price: float = 0.0
    proxy_tokens: float | None = None
    reuse: Reuse = NOTHING_REUSED

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InvalidSetting(f"the seed is {self.seed}; it must be at least 0", field="seed")
        if self.proxy_tokens is not None and not 0 < self.proxy_tokens < math.inf:
            raise InvalidSetting(
                f"proxy_tokens is {self.proxy_tokens}; it must be a number above 0", field="proxy_tokens"
            )
        _check_heeded(self)
        check_reusable(self.parts, self.reuse)

    @property
    def parts(self) -> Recipe:
        """The recipe asked for."""
        return self.recipe or combine(method_named(self.method))

    @cached_property
    def space(self) -> SimplexMap:
        """From what is searched to the domains."""
        return self.reuse.search_space(self.domains)

    @property
    def specification(self) -> ObjectiveSpec:
        """The objective at the granularity of the recipe."""
        granularity: Any = self.parts.granularity  # a Recipe checks it, and has only names
        return replace(ObjectiveSpec.of(self.objective), granularity=granularity)


def _check_heeded(request: ProposalRequest) -> None:
    """Refuse what the solver would pass over in silence."""
    solver = SOLVERS[request.parts.solver]
    if solver.respects_constraints:
        return
    for field, given in (
        ("constraints", request.constraints),
        ("guard_rails", request.guard_rails),
        ("kl_weight", request.kl_weight),
        ("repetition_price", request.repetition_price),
    ):
        if given:
            raise InvalidSetting(
                f"the solver {solver.name!r} knows repetition caps only; ask for another to have {field}",
                field=field,
            )
    if request.proxy_tokens is None:
        raise InvalidSetting(
            f"the solver {solver.name!r} extrapolates from the proxy's tokens to the target's; say how many they are",
            field="proxy_tokens",
        )


def problem_of(request: ProposalRequest, columns: "Columns", law: Fitted) -> MixtureProblem:
    """The problem a fitted law poses; a guard rail set against the natural distribution is set by the law itself.

    Raises:
        InvalidMetrics: a guard rail for a task that was not fitted.
        InvalidSetting: the worst of standardised families, whose offsets no solver takes.
    """
    domains = request.domains
    natural = domains.natural_weights
    if columns.worst and columns.offsets.any():
        raise InvalidSetting("the worst of standardised families cannot be minimised", field="standardize")
    families = tuple(
        TaskMean(name, row) for name, row in zip(columns.families, columns.membership, strict=True)
    )
    repetition = RepetitionCost(request.repetition_price, domains.tokens / request.target_tokens)
    return MixtureProblem(
        Objective(
            law,
            columns.weights,
            natural,
            request.kl_weight,
            families if columns.worst else (),
            repetition if request.repetition_price else None,
        ),
        request.space,
        repetition_caps(domains, request.target_tokens, request.repetition_cap),
        request.constraints,
        tuple(_rail(guard, columns, law, request) for guard in request.guard_rails),
    )


def objective_asked(
    tasks: Sequence[Mapping[str, Any]], domains: Sequence[str], granularity: str, *, worst_family: bool
) -> ObjectiveSpec:
    """The objective of a request: its tasks, or without any the held-out slice of every domain, each the same.

    Args:
        tasks: each with its `name`, `weight` and `family`, which may be None, and its `metric` where that is an
            accuracy, which enters as an error rate.
        domains: m names.
        granularity: of the recipe.
        worst_family: minimise the worst family's mean instead of the weighted mean of all tasks.

    Raises:
        InvalidWeights, InvalidSetting: as `ObjectiveSpec`.
    """
    counted = tasks or [
        {"name": f"{HELD_OUT_PREFIX}{name}", "weight": 1.0, "family": None} for name in domains
    ]
    spec = objective_of_tasks(
        {task["name"]: float(task["weight"]) for task in counted},
        {task["name"]: task["family"] for task in counted if task["family"]},
        worst_family=worst_family,
        per_family=granularity == "per family",
    )
    chosen: Any = granularity  # a Recipe checks it, and has only names
    higher = [task["name"] for task in counted if task.get("metric") == "accuracy"]
    return replace(
        spec,
        granularity=chosen,
        directions=dict.fromkeys(higher, "higher"),
        turned=dict.fromkeys(higher, "error rate"),
    )


def check_constraints(
    domains: Domains,
    constraints: Sequence[LinearConstraint],
    guard_rails: Sequence[TaskGuard],
    target_tokens: float,
    repetition_cap: float | None,
    space: SimplexMap | None = None,
) -> None:
    """Refuse before anything is trained what no solver could satisfy, whatever law is fitted.

    With `space`, of what is searched and the domains, what no mixture with its frozen ratios could satisfy.

    Raises:
        InvalidSetting: two of them of one name, or one called like a domain.
        UnknownDomain: a constraint on a domain that is not there.
        Infeasible: the target cannot be reached under the caps, or no mixture satisfies them and the constraints;
            those in conflict are named.
    """
    check_target_reachable(domains, target_tokens, repetition_cap)
    check_names(domains.names, [one.name for one in (*constraints, *guard_rails)])
    caps = repetition_caps(domains, target_tokens, repetition_cap)
    system = LinearSystem.over(space or SimplexMap.identity(domains.names), caps, constraints)
    if not is_feasible(system):
        raise linear_conflict(system).error()


def _rail(guard: TaskGuard, columns: "Columns", law: Fitted, request: ProposalRequest) -> GuardRail:
    """The bound on what the law predicts, which is better when lower whatever the task is."""
    spec = request.specification
    guard.check_direction(spec.directions.get(guard.task) == "higher")
    if guard.task not in columns.names:
        raise InvalidMetrics(
            f"there is no fitted task {guard.task!r} to guard; there are {', '.join(columns.names)}",
            field="guard_rails",
            names=[guard.task],
        )
    column = columns.names.index(guard.task)
    bound = guard.at_most if guard.at_least is None else guard.at_least
    if bound is not None:
        bound = spec.lower_is_better(guard.task, bound)
    else:
        natural = request.domains.natural_weights[None]
        bound = float(law.predict(natural)[0][0, column]) + float(guard.worse_than_natural or 0.0)
    return GuardRail(TaskMean(guard.name, np.eye(len(columns.names))[column]), bound)
