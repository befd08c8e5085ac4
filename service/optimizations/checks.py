"""What can be said of a request for a mixture before anything of it is stored."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from mixing.domains import HELD_OUT_PREFIX
from mixing.errors import MixingError
from mixing.limits import Limits
from mixing.methods import Method, Recipe, combine, method_named
from mixing.objective import groups
from mixing.parts import REGRESSIONS, SAMPLERS
from mixing.solve.constraints import LinearConstraint, share_of
from mixing.terms import StopRule, TaskGuard, Terms, check_heeded
from proxy_models.families.start import StartFolder
from service.optimizations.schemas import OptimizationRequest, StopRequest
from service.training.checks import (
    check_rows,
    check_tasks,
    check_tasks_elsewhere,
    check_training,
    require_corpus,
)
from store.documents import VERSION, OptimizationDocument, TaskDocument, TrainingDocument
from store.problems import Invalid, invalid
from store.revisions.shared_text import counted_domains, unmeasured
from store.settings import Settings
from store.tables import Revision

DECISIVE = "decisive"
"""The sampler of rounds that nobody named one for: it learns, whatever the regression."""
STOPPING_ROUNDS = 5
"""Where training may stop early and nobody says how often to look: after half of the runs, then after each eighth."""

MOST_SHARED = 50_000
"""Domains in all shares together: each is stored, and is a number of the linear programmes. Of the two thousand that
a domain set may have each can be in twenty-five."""


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request in which everything that does not need the store was found to be good.

    Attributes:
        request: as it came.
        document: what is stored of it, with the method's own terms where it left them out; without what depends on
            the revision.
        start: what the proxy starts from.
    """

    request: OptimizationRequest
    document: OptimizationDocument
    start: StartFolder | None = None


def check_request(request: OptimizationRequest, settings: Settings) -> CheckedRequest:
    """Validate method, parts, proxy and task files. Raises Invalid naming the field."""
    try:
        method = method_named(request.method)
    except MixingError as error:
        raise invalid(error, "method") from error
    recipe = None if method.recipe is None else _recipe(method, request)
    proxy: TrainingDocument | None = None
    start: StartFolder | None = None
    if recipe is None:
        _check_untrained(method, request)
    elif request.swarms or request.trained == "elsewhere":
        _check_elsewhere(request, recipe)
        _check_parts(request, recipe)
    elif request.proxy is None:
        raise Invalid("missing_proxy", f"{method.title} trains proxy models; say which.", "proxy")
    else:
        _check_here(request)
        proxy, start = check_training(request.proxy, request.proxy.tokens, "proxy.", settings)
        _check_parts(request, recipe)
    terms: dict[str, Any] = {"repetition_cap": method.repetition_cap, "kl_weight": method.kl_weight}
    for term in fields(Terms):  # the request has most of them by name
        if (value := getattr(request, term.name, None)) is not None:
            terms[term.name] = value
    if terms.get("prefer") == "in_use":
        del terms["prefer"]  # its weights are in the store (`service.optimizations.planning`)
    terms["target"] = None  # once its model and the proxies' are counted (`service.optimizations.target`)
    terms |= {"recipe": recipe, "guard_rails": tuple(_guards(request))}
    terms |= {"rounds": (), "stop_when": stop_rule(request.stop_when)}  # rounds once the runs are counted
    if proxy is not None:
        _check_noise(terms["stop_when"], proxy)
    document = OptimizationDocument(
        **terms,
        version=VERSION,
        tasks=_tasks(request, settings),
        aggregate=request.aggregate,
        proxy=proxy,
        trained=request.trained,
        proxy_name=request.proxy_name,
        run_tokens=request.run_tokens,
        run_parameters=request.run_parameters,
        swarms=tuple(request.swarms),
    )
    return CheckedRequest(request, document, start)


def _tasks(request: OptimizationRequest, settings: Settings) -> tuple[TaskDocument, ...]:
    """As stored; of swarms that are given they follow from what these measured (`service.optimizations.given`)."""
    if request.swarms:
        return ()
    if request.trained == "elsewhere":
        return check_tasks_elsewhere(request.tasks)
    return check_tasks(request.tasks, settings)


_SAMPLING = (
    "runs",
    "rounds",
    "stop_when",
    "sampler",
    "proxy",
    "reuse",
    "proxy_name",
    "run_tokens",
    "run_parameters",
    "anchors",
)


def _check_elsewhere(request: OptimizationRequest, recipe: Recipe) -> None:
    """Raise Invalid for what has no meaning where the runs are trained elsewhere, or is missing there."""
    if request.swarms:
        for name in ("trained", *_SAMPLING):
            if getattr(request, name) not in (None, "here", []):
                raise Invalid(
                    "swarms_are_given", f"The swarms' runs are the evidence; leave {name} out.", name
                )
        if repeated := sorted(name for name, times in Counter(request.swarms).items() if times > 1):
            raise Invalid("duplicate_swarm", f"Named twice: {', '.join(repeated)}.", "swarms")
        return
    if request.proxy is not None:
        raise Invalid(
            "trained_elsewhere",
            "What is trained elsewhere is not the service's to choose; say what it is as proxy_name, and leave proxy"
            " out.",
            "proxy",
        )
    if request.same_proxy:
        raise Invalid("no_swarms", "No swarms are given; leave same_proxy out.", "same_proxy")
    sampler = SAMPLERS[recipe.sampler]
    if sampler.absolute_tokens and request.run_tokens is None:
        raise Invalid(
            "missing_run_tokens",
            f"The sampler {sampler.name!r} makes some runs shorter than others; say how many tokens a run trains.",
            "run_tokens",
        )


def _check_here(request: OptimizationRequest) -> None:
    """Raise Invalid for what is said of runs that are trained elsewhere, and of none that are trained here."""
    for name in ("proxy_name", "run_tokens", "run_parameters", "same_proxy"):
        if getattr(request, name):
            raise Invalid(
                "trained_here",
                f"The runs are trained here, as proxy says; {name} is of runs that are trained elsewhere.",
                name,
            )


def stop_rule(request: StopRequest | None) -> StopRule | None:
    """As the mathematics has it. Raises Invalid for one without a part, or that nothing meets."""
    try:
        return None if request is None else StopRule(request.expected_regret, request.noise)
    except MixingError as error:
        raise invalid(error, error.field or "stop_when") from error


def _check_noise(rule: StopRule | None, proxy: TrainingDocument) -> None:
    """Raise Invalid for a rule that asks for a noise that nothing will tell."""
    if rule is not None and rule.expected_regret is None and proxy.evaluations < 2:
        raise Invalid(
            "never_met",
            "A run's noise is told by its last evaluations, and the proxies have one each, so the rule can never be"
            " met: ask for more evaluations, or for an expected_regret.",
            "stop_when.noise",
        )


def rounds_asked(request: OptimizationRequest, method: Method) -> int:
    """How many rounds the swarm is trained in."""
    if request.rounds is not None:
        return request.rounds
    return len(method.rounds) if request.stop_when is None else max(len(method.rounds), STOPPING_ROUNDS)


def _recipe(method: Method, request: OptimizationRequest) -> Recipe:
    sampler = request.sampler
    if method.recipe is not None and rounds_asked(request, method) > 1:
        usual = sampler or method.recipe.sampler
        asked = request.rounds is not None or request.stop_when is not None
        if asked and usual in SAMPLERS and not SAMPLERS[usual].learns:
            if sampler is not None:
                raise Invalid(
                    "rounds_learn_nothing",
                    f"The sampler {sampler!r} draws its rounds without a look at what was measured; leave it out, or"
                    " leave out rounds and stop_when.",
                    "sampler",
                )
            sampler = DECISIVE
    try:
        return combine(
            method,
            sampler=sampler,
            regression=request.regression,
            granularity=request.granularity,
            solver=request.solver,
        )
    except MixingError as error:
        raise invalid(error, error.field or "method") from error


_TRAINING_ONLY = (
    "runs",
    "rounds",
    "stop_when",
    "sampler",
    "regression",
    "granularity",
    "solver",
    "proxy",
    "tasks",
    "guard_rails",
    "shares",
    "kl_weight",
    "repetition_price",
    "prefer",
    "reuse",
    "proxy_name",
    "run_tokens",
    "run_parameters",
    "target",
    "anchors",
    "swarms",
)


def _check_untrained(method: Method, request: OptimizationRequest) -> None:
    """Raise Invalid for what a method that trains nothing has no use for, instead of ignoring it."""
    for name in _TRAINING_ONLY:
        if getattr(request, name) not in (None, []):
            raise Invalid(
                "nothing_is_trained",
                f"{method.title} trains no runs, so it has no use for {name!r}; leave it out.",
                name,
            )
    if request.trained != "here":
        raise Invalid("nothing_is_trained", f"{method.title} trains nothing; leave it out.", "trained")
    if request.aggregate != "mean":
        raise Invalid("nothing_is_trained", f"{method.title} minimises nothing; leave it out.", "aggregate")
    if request.temperature is not None and method.name != "temperature":
        raise Invalid("no_temperature", f"{method.title} has no temperature; leave it out.", "temperature")


def _check_parts(request: OptimizationRequest, recipe: Recipe) -> None:
    """Raise Invalid for what the regression or the solver of the recipe would ignore."""
    heeded = ("shares", "guard_rails", "kl_weight", "repetition_price", "prefer")
    try:
        check_heeded(recipe, **{name: getattr(request, name) for name in heeded})
    except MixingError as error:
        raise invalid(error, str(error.field)) from error
    held_out_only = REGRESSIONS[recipe.regression].reads_own_domain
    if held_out_only and (request.tasks or request.swarms or request.trained == "elsewhere"):
        raise Invalid(
            "own_domain_only",
            f"The regression {recipe.regression!r} predicts each domain's own held-out loss; leave the tasks out.",
            "tasks",
        )
    if request.temperature is not None:
        raise Invalid("no_temperature", "Only the method 'temperature' has a temperature.", "temperature")


def check_answerable(checked: CheckedRequest, revision: Revision) -> None:
    """Refuse an objective the revision cannot be measured on, and a target or shares that no mixture satisfies.

    With counts still missing, sampling the swarm checks it. Nothing is read: the revision comes with its domains.
    """
    request = checked.request
    counts = {row.name: row.tokens for row in revision.domains}
    if checked.document.recipe is not None:
        without = unmeasured(revision)
        _check_objective(checked, [name for name in counts if name not in without])
    if checked.document.is_elsewhere and SAMPLERS[checked.document.parts.sampler].reads_entropies:
        require_corpus(revision, "sampler")
    if checked.document.proxy is not None:
        require_corpus(revision, "proxy")
        check_rows(checked.document.proxy, len(counts), "proxy.")
    if None in counts.values():
        return
    shares, terms = shares_of(request, list(counts)), checked.document
    limits = Limits(
        counted_domains(revision), terms.target_tokens, terms.repetition_cap, tuple(shares), terms.guard_rails
    )
    try:
        limits.check()
    except MixingError as error:
        raise invalid(error, "target_tokens" if error.field == "target_tokens" else "shares") from error


def _check_objective(checked: CheckedRequest, domains: Sequence[str]) -> None:
    """Raise Invalid for an objective the recipe cannot be asked for, and for a guard rail of what is not measured."""
    document, worst = checked.document, checked.request.aggregate == "worst_family"
    tasks = [task.name for task in document.tasks]
    held_out = () if document.proxy is None else domains
    measured = (*tasks, *(f"{HELD_OUT_PREFIX}{name}" for name in held_out))
    try:
        objective = checked.document.objective(domains)
        groups(objective, measured)
    except MixingError as error:
        raise invalid(error, "granularity" if error.field == "granularity" else "tasks") from error
    if worst and len(objective.parts()) < 2:
        raise Invalid("one_family", "The worst of a single family is that family.", "aggregate")
    higher = {task.name for task in document.tasks if task.is_higher_better}
    if worst and higher and any(task.weight > 0 and task.name not in higher for task in document.tasks):
        complaint = (
            "The worst of BPB and accuracies means nothing: they have no common unit; ask for the mean."
        )
        raise Invalid("mixed_metrics", complaint, "aggregate")
    guarded: set[str] = set()
    for index, rail in enumerate(checked.request.guard_rails):
        field = f"guard_rails[{index}].task"
        if rail.task not in measured:
            known = ", ".join(tasks) or f"{HELD_OUT_PREFIX}<domain> of each domain"
            raise Invalid(
                "unknown_task", f"There is no task {rail.task!r} to guard; there are {known}.", field
            )
        if rail.task in guarded:
            raise Invalid("duplicate_guard_rail", f"Two guard rails are of {rail.task!r}.", field)
        guarded.add(rail.task)
        try:
            TaskGuard(**rail.model_dump()).check_direction(rail.task in higher)
        except MixingError as error:
            raise invalid(error, f"guard_rails[{index}].{error.field}") from error


def shares_of(request: OptimizationRequest, domains: Sequence[str]) -> list[LinearConstraint]:
    """The shares, named and with their groups resolved to domains. Raises Invalid naming the share at fault."""
    taken = {*domains, *(guard.name for guard in _guards(request))}
    shares: list[LinearConstraint] = []
    named = 0
    for index, share in enumerate(request.shares):
        try:
            resolved = share_of(share.domains, domains, share.minimum, share.maximum, share.name)
        except MixingError as error:
            raise invalid(error, f"shares[{index}].{error.field or 'domains'}") from error
        if resolved.name in taken:
            raise Invalid(
                "duplicate_share",
                f"Another share, a guard rail or a domain is called {resolved.name!r} too; name this one otherwise.",
                f"shares[{index}].name",
            )
        taken.add(resolved.name)
        shares.append(resolved)
        named += len(resolved.coefficients)
        if named > MOST_SHARED:
            raise Invalid(
                "too_many_shared",
                f"The shares up to {resolved.name[:200]!r} are of {named:,} domains, counting one as often as it"
                f" is in a share, and at most {MOST_SHARED:,} may be; leave shares out, or domains of theirs.",
                f"shares[{index}].domains",
            )
    return shares


def _guards(request: OptimizationRequest) -> list[TaskGuard]:
    return [TaskGuard(**rail.model_dump()) for rail in request.guard_rails]
