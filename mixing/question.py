"""The question a mixture answers, and the mathematical problem it becomes once a law is fitted."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mixing.document import Documented
from mixing.domains import Domains, Mixture
from mixing.errors import InvalidMetrics, InvalidSetting, MixingError
from mixing.laws.regression import Fitted
from mixing.limits import Limits
from mixing.methods import method_named
from mixing.objective import USUAL_SPREAD, ObjectiveSpec
from mixing.parts import SOLVERS
from mixing.reuse.reuse import NOTHING_REUSED, Reuse, check_reusable
from mixing.runs.evidence import Evidence
from mixing.simplex_map import SimplexMap
from mixing.solve.constraints import LinearConstraint
from mixing.solve.problem import GuardRail, MixtureProblem, Objective, RepetitionCost, TaskMean
from mixing.terms import Target, TaskGuard, Terms, check_heeded


@dataclass(frozen=True, kw_only=True)
class Question(Terms, Documented):
    """What a mixture is asked for: one value, taken by the swarm, the proposal, the reuse plan and the baselines.

    >>> domains = Domains.of({"web": 5e9, "code": 1e9})
    >>> question = Question(domains=domains, target_tokens=4e9, objective={"humaneval": 1.0}, rounds=(12,))
    >>> question.parts.regression, question.limits.caps  # `sample_round(question)`, `propose(question, runs)`
    ('ensemble', array([1., 5.]))

    Attributes:
        domains: m domains with their tokens.
        constraints: shares and pins.
        objective: `{task: weight}`, or a specification with families; lower metrics are better. May be empty where
            no law is fitted.
        proxy_tokens: what a full proxy run trains, for a method that extrapolates from there to the target.
        proxy_parameters: of a proxy's model, its embeddings not counted; with the tokens what a target is held to.
        reuse: the ratios to keep and the runs of older revisions to count.

    Raises:
        InvalidSetting: as `Terms` and `Limits`; proxy tokens or parameters that are not positive, or are missing
            where the solver or the target needs them; a target smaller than its proxies; a reuse that the recipe
            cannot make.
        UnknownDomain, MissingDomain, InvalidWeights: the mixture to be near to.
        NotHeeded: what the solver takes no account of.
        UnknownMethod: no such method.
    """

    domains: Domains
    constraints: tuple[LinearConstraint, ...] = ()
    objective: Mapping[str, float] | ObjectiveSpec = field(default_factory=dict)
    proxy_tokens: float | None = None
    proxy_parameters: float | None = None
    reuse: Reuse = NOTHING_REUSED

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("proxy_tokens", "proxy_parameters"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise InvalidSetting(f"{name} is {value}; it must be a number above 0", field=name)
        if not method_named(self.method).trains_runs and self.recipe is None:
            return
        check_heeded(
            self.parts,
            constraints=self.constraints,
            guard_rails=self.guard_rails,
            kl_weight=self.kl_weight,
            repetition_price=self.repetition_price,
            prefer=self.prefer,
        )
        self._check_preferred()
        check_reusable(self.parts, self.reuse)
        if self.target is not None:
            self._check_target(self.target)

    def _check_preferred(self) -> None:
        if self.prefer is None or isinstance(self.prefer, str):
            return
        try:
            Mixture.of(self.prefer, over=self.domains.names)
        except MixingError as error:
            error.field = "prefer"
            raise

    @cached_property
    def preferred(self) -> np.ndarray:
        """(m,) the mixture to be near to; the natural distribution where nothing was said."""
        if self.prefer is None or isinstance(self.prefer, str):
            return self.domains.natural_weights
        return Mixture.of(self.prefer).align(self.domains.names)

    def _check_target(self, target: Target) -> None:
        for name, whole in (("parameters", self.proxy_parameters), ("tokens", self.proxy_tokens)):
            if whole is None:
                raise InvalidSetting(
                    f"a target is held to its proxies; say how many {name} they have", field=f"proxy_{name}"
                )
            if (value := getattr(target, name)) < whole:
                raise InvalidSetting(
                    f"the target has {value:,.0f} {name} and its proxies {whole:,.0f}; a target is larger than what"
                    " is trained for it: make the proxies smaller, or leave the target out",
                    field="target",
                )

    @property
    def target_scale(self) -> tuple[float, float] | None:
        """Parameters and tokens of the target in units of the proxies'; None without one."""
        if self.target is None or self.proxy_parameters is None or self.proxy_tokens is None:
            return None
        return self.target.parameters / self.proxy_parameters, self.target.tokens / self.proxy_tokens

    @cached_property
    def limits(self) -> Limits:
        """Domains, budget and what no mixture may break: caps, epochs and reachability, computed once."""
        return Limits(
            self.domains, self.target_tokens, self.repetition_cap, self.constraints, self.guard_rails
        )

    @cached_property
    def space(self) -> SimplexMap:
        """From what is searched, virtual domains and free ones, to the domains."""
        return self.reuse.search_space(self.domains)

    @cached_property
    def specification(self) -> ObjectiveSpec:
        """The objective at the granularity of the recipe."""
        granularity: Any = self.parts.granularity  # a Recipe checks it, and has only names
        return replace(ObjectiveSpec.of(self.objective), granularity=granularity)


def problem_of(
    question: Question, evidence: Evidence, law: Fitted, factors: np.ndarray | float = 1.0
) -> MixtureProblem:
    """The problem a fitted law poses; a guard rail set against the natural distribution is set by the law itself.

    (C,) `factors` above 0 are what each column's gains are worth at the target (`mixing.laws.transfer`): the tasks
    then weigh as they will there. Guard rails stay bounds on what a proxy measures.

    Everything in it is counted in what the objective varies by over the runs, and a guard rail in what its task
    varies by, so that no tolerance of a solver hangs on a metric's unit.

    Raises:
        InvalidMetrics: a guard rail for a task that was not fitted.
        InvalidSetting: the worst of standardised families, whose offsets no solver takes.
    """
    domains, heeded = question.domains, SOLVERS[question.parts.solver].respects_constraints
    groups, unit = evidence.groups, evidence.spread
    if groups.worst and groups.offsets.any():
        raise InvalidSetting("the worst of standardised families cannot be minimised", field="standardize")
    families = tuple(
        TaskMean(name, row * factors / unit)
        for name, row in zip(groups.families, groups.membership, strict=True)
    )
    price = question.repetition_price / unit
    repetition = RepetitionCost(price, domains.unique_tokens / question.target_tokens)
    of_spread = USUAL_SPREAD if question.kl_unit == "spread" else unit
    return MixtureProblem(
        Objective(
            law,
            groups.column_weights * factors / unit,
            domains.natural_weights,
            question.kl_weight / of_spread,
            families if groups.worst else (),
            repetition if question.repetition_price else None,
            unit,
        ),
        question.space,
        question.limits.caps if heeded else question.limits.separate_caps,
        question.limits.all_constraints if heeded else (),
        tuple(_rail(guard, evidence, law, question) for guard in question.guard_rails),
    )


def _rail(guard: TaskGuard, evidence: Evidence, law: Fitted, question: Question) -> GuardRail:
    """The bound on what the law predicts, which is better when lower whatever the task is."""
    spec, groups = question.specification, evidence.groups
    guard.check_direction(spec.directions.get(guard.task) == "higher")
    if guard.task not in groups.names:
        raise InvalidMetrics(
            f"there is no fitted task {guard.task!r} to guard; there are {', '.join(groups.names)}",
            field="guard_rails",
            names=[guard.task],
        )
    column = groups.names.index(guard.task)
    bound = guard.at_most if guard.at_least is None else guard.at_least
    if bound is not None:
        bound = spec.lower_is_better(guard.task, bound)
    else:
        natural = question.domains.natural_weights[None]
        bound = float(law.mean(natural)[0, column]) + float(guard.worse_than_natural or 0.0)
    unit = float(evidence.spreads[column])
    return GuardRail(TaskMean(guard.name, np.eye(len(groups.names))[column] / unit), bound / unit, unit)
