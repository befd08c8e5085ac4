"""Creating, cancelling and retrying optimizations."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy.orm import Session

from mixing.domains import Domains
from mixing.errors import MixingError, TooFewRuns
from mixing.laws.catalogue import REGRESSIONS
from mixing.methods import Method, Recipe, combine, method_named
from mixing.objective import groups
from mixing.parts import HELD_OUT_PREFIX
from mixing.question import TaskGuard, check_constraints, objective_asked
from mixing.repetition import check_target_reachable
from mixing.solve.catalogue import SOLVERS
from mixing.solve.problem import LinearConstraint
from mixing.solve.shares import share_of
from proxy_models.families.start import StartFolder
from service.domain_sets.repository import require_usable, revision_of
from service.optimizations.repository import optimization_with_id
from service.optimizations.reuse import PlannedReuse, ReuseContext, planned_reuse
from service.optimizations.schemas import OptimizationRequest
from service.training.checks import check_tasks, check_training, check_vocabulary
from store import jobs
from store.clock import database_now
from store.problems import Conflict, Invalid, invalid
from store.settings import Settings
from store.tables import Optimization


@dataclass(frozen=True, slots=True)
class CheckedOptimization:
    """A request in which everything that does not need the store was found to be good."""

    request: OptimizationRequest
    method: Method
    recipe: Recipe | None
    tasks: list[dict[str, object]]
    proxy: dict[str, object] | None = None
    start: StartFolder | None = None

    @property
    def repetition_cap(self) -> float | None:
        """Epochs, the method's where none were asked for."""
        asked = self.request.repetition_cap
        return self.method.repetition_cap if asked is None else asked


def check_request(request: OptimizationRequest, settings: Settings) -> CheckedOptimization:
    """Validate method, parts, proxy and task files. Raises Invalid naming the field."""
    try:
        method = method_named(request.method)
    except MixingError as error:
        raise invalid(error, "method") from error
    recipe = None if method.recipe is None else _recipe(method, request)
    proxy: dict[str, object] | None = None
    start: StartFolder | None = None
    if recipe is None:
        _check_untrained(method, request)
    elif request.proxy is None:
        raise Invalid("missing_proxy", f"{method.title} trains proxy models; say which.", "proxy")
    else:
        proxy, start = check_training(request.proxy, request.proxy.tokens, "proxy.", settings)
        _check_parts(request, recipe)
    return CheckedOptimization(request, method, recipe, check_tasks(request.tasks, settings), proxy, start)


def _recipe(method: Method, request: OptimizationRequest) -> Recipe:
    try:
        return combine(
            method,
            sampler=request.sampler,
            regression=request.regression,
            granularity=request.granularity,
            solver=request.solver,
        )
    except MixingError as error:
        raise invalid(error, error.field or "method") from error


_TRAINING_ONLY = (
    "runs",
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
    "reuse",
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
    if request.aggregate != "mean":
        raise Invalid("nothing_is_trained", f"{method.title} minimises nothing; leave it out.", "aggregate")
    if request.temperature is not None and method.name != "temperature":
        raise Invalid("no_temperature", f"{method.title} has no temperature; leave it out.", "temperature")


def _check_parts(request: OptimizationRequest, recipe: Recipe) -> None:
    """Raise Invalid for what the regression or the solver of the recipe would ignore."""
    solver = SOLVERS[recipe.solver]
    if not solver.respects_constraints and (request.shares or request.guard_rails):
        raise Invalid(
            "constraints_not_respected",
            f"The solver {solver.name!r} keeps no shares and no guard rails; ask for another, such as 'search'.",
            "solver",
        )
    for name in ("kl_weight", "repetition_price"):
        if getattr(request, name) and not solver.respects_constraints:
            raise Invalid(
                f"{name}_not_respected",
                f"The solver {solver.name!r} has no use for {name!r}; leave it out.",
                name,
            )
    if REGRESSIONS[recipe.regression].reads_own_domain and request.tasks:
        raise Invalid(
            "own_domain_only",
            f"The regression {recipe.regression!r} predicts each domain's own held-out loss; leave the tasks out.",
            "tasks",
        )
    if request.temperature is not None:
        raise Invalid("no_temperature", "Only the method 'temperature' has a temperature.", "temperature")


@dataclass(frozen=True, slots=True)
class PlannedOptimization:
    """An optimization found to be good and not stored: its runs, in which rounds, and what it reuses."""

    checked: CheckedOptimization
    revision_id: str
    runs: int
    rounds: tuple[int, ...]
    minimum_runs: int
    shares: list[LinearConstraint]
    reuse: PlannedReuse | None


def plan_optimization(
    session: Session, checked: CheckedOptimization, maximum_runs: int, dry_run: bool = False
) -> PlannedOptimization:
    """Find what can be reused and how many runs that takes. Reads only.

    Raises:
        NotFound, NotReady, NotCounted: the revision or the mixture to go on from.
        Invalid: naming the field at fault.
    """
    request, method, recipe = checked.request, checked.method, checked.recipe
    revision = revision_of(session, request.domain_set, request.revision)
    require_usable(session, revision)
    check_vocabulary(checked.start, revision.vocabulary_size, "proxy.start")
    shares = _shares(request, [row.name for row in revision.domains])
    reuse = None
    if recipe is not None:
        context = ReuseContext(
            request, method, recipe, checked.repetition_cap, checked.tasks, shares, checked.proxy
        )
        reuse = planned_reuse(session, revision, context, dry_run)
    domains = len(revision.domains)
    if reuse is not None:
        runs = reuse.plan.new_runs
    else:
        runs = request.runs if request.runs is not None else method.default_runs(domains, recipe)
    if runs > maximum_runs:
        raise Invalid(
            "too_many_runs",
            f"{method.title} over {domains} domains asks for {runs} runs, and at most {maximum_runs} are allowed.",
            "runs",
        )
    if recipe is None:
        needed, rounds = 0, ()
    elif reuse is None:
        needed, rounds = recipe.minimum_runs(domains), _rounds(method, recipe, runs, domains)
    else:
        needed = reuse.plan.least_new_runs
        rounds = _rounds(method, recipe, runs, domains, needed)
    return PlannedOptimization(checked, revision.id, runs, rounds, needed, shares, reuse)


def create_optimization(session: Session, planned: PlannedOptimization) -> str:
    """Store the optimization; the workers take it from there. Answers its id."""
    checked = planned.checked
    request, method = checked.request, checked.method
    row = Optimization(
        revision_id=planned.revision_id,
        method=method.name,
        seed=request.seed,
        settings={
            "runs": planned.runs,
            "rounds": list(planned.rounds),
            "minimum_runs": planned.minimum_runs,
            "recipe": None if checked.recipe is None else asdict(checked.recipe),
            "temperature": request.temperature,
            "target_tokens": request.target_tokens,
            "repetition_cap": checked.repetition_cap,
            "kl_weight": request.kl_weight if request.kl_weight is not None else method.kl_weight,
            "repetition_price": request.repetition_price or 0.0,
            "strengths": list(request.strengths),
            "proxy": checked.proxy,
            "tasks": checked.tasks,
            "aggregate": request.aggregate,
            "shares": [_stored(share) for share in planned.shares],
            "guard_rails": [rail.model_dump() for rail in request.guard_rails],
            "reuse": None if planned.reuse is None else planned.reuse.document(),
        },
    )
    session.add(row)
    session.flush()
    return row.id


def _rounds(
    method: Method, recipe: Recipe, runs: int, domains: int, least: int | None = None
) -> tuple[int, ...]:
    try:
        return method.split(recipe, runs, domains, least)
    except TooFewRuns as error:
        raise Invalid("too_few_runs", f"{error}.", "runs", needed=error.needed) from error
    except MixingError as error:
        raise invalid(error, "runs") from error


def _check_objective(request: OptimizationRequest, recipe: Recipe, domains: Sequence[str]) -> None:
    """Raise Invalid for an objective the recipe cannot be asked for, and for a guard rail of what is not measured."""
    worst = request.aggregate == "worst_family"
    tasks = [task.name for task in request.tasks]
    measured = (*tasks, *(f"{HELD_OUT_PREFIX}{name}" for name in domains))
    try:
        objective = objective_asked(
            [task.model_dump() for task in request.tasks], domains, recipe.granularity, worst_family=worst
        )
        groups(objective, measured)
    except MixingError as error:
        raise invalid(error, "granularity" if error.field == "granularity" else "tasks") from error
    if worst and len(objective.parts()) < 2:
        raise Invalid("one_family", "The worst of a single family is that family.", "aggregate")
    higher = {task.name for task in request.tasks if task.metric == "accuracy"}
    if worst and higher and any(task.metric == "bpb" and task.weight > 0 for task in request.tasks):
        complaint = (
            "The worst of BPB and accuracies means nothing: they have no common unit; ask for the mean."
        )
        raise Invalid("mixed_metrics", complaint, "aggregate")
    guarded: set[str] = set()
    for index, rail in enumerate(request.guard_rails):
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


def _shares(request: OptimizationRequest, domains: Sequence[str]) -> list[LinearConstraint]:
    """The shares, named and with their groups resolved to domains. Raises Invalid naming the share at fault."""
    taken = {*domains, *(guard.name for guard in _guards(request))}
    shares: list[LinearConstraint] = []
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
    return shares


def _stored(share: LinearConstraint) -> dict[str, object]:
    return {
        "name": share.name,
        "domains": sorted(share.coefficients),
        "minimum": share.lower if math.isfinite(share.lower) else None,
        "maximum": share.upper if math.isfinite(share.upper) else None,
    }


def _guards(request: OptimizationRequest) -> list[TaskGuard]:
    return [TaskGuard(**rail.model_dump()) for rail in request.guard_rails]


def check_answerable(session: Session, checked: CheckedOptimization) -> None:
    """Refuse an objective the revision cannot be measured on, and a target or shares that no mixture satisfies.

    With counts still missing, sampling the swarm checks it. Reads only: solving for the smallest conflict among
    many shares takes its time, in which nobody should wait for the store.
    """
    request = checked.request
    revision = revision_of(session, request.domain_set, request.revision)
    counts = {row.name: row.tokens for row in revision.domains}
    known = {name: tokens for name, tokens in counts.items() if tokens is not None}
    if checked.recipe is not None:
        _check_objective(request, checked.recipe, list(counts))
    if len(known) < len(counts):
        return
    shares = _shares(request, list(counts))
    asked = (request.target_tokens, checked.repetition_cap)
    try:
        check_target_reachable(Domains.of(known), *asked)
    except MixingError as error:
        raise invalid(error, "target_tokens") from error
    try:
        check_constraints(Domains.of(known), shares, _guards(request), *asked)
    except MixingError as error:
        raise invalid(error, "shares") from error


def cancel(session: Session, optimization_id: str) -> Optimization:
    """Stop the optimization: nothing new starts, what runs ends at its next heartbeat, what is stored stays."""
    row = optimization_with_id(session, optimization_id)
    if row.state in jobs.ENDED:
        raise Conflict("already_ended", f"The optimization has {row.state} already.")
    jobs.cancel_jobs(session, row.id)
    row.state = jobs.CANCELLED
    _touch(row)
    return row


def retry(session: Session, optimization_id: str) -> Optimization:
    """Go on with a failed or cancelled optimization; runs that finished are kept, not trained again."""
    row = optimization_with_id(session, optimization_id)
    if row.state not in (jobs.FAILED, jobs.CANCELLED):
        raise Conflict(
            "not_ended", f"Only a failed or cancelled optimization is retried; this is {row.state}."
        )
    require_usable(session, row.revision)
    jobs.requeue_jobs(session, row.id)
    row.state = jobs.QUEUED
    row.failure_code = row.failure_detail = None
    _touch(row)
    return row


def _touch(row: Optimization) -> None:
    row.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue] - an SQL expression, set on flush
