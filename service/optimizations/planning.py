"""What a request for a mixture comes to before it is stored: its checks, its runs, and what it reuses.

Run as a computation (`service.processes.computation`), which has a connection of its own. What can be refused cheaply
is refused first, and all of it before older runs are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

from mixing.domains import Mixture
from mixing.errors import MixingError, TooFewRuns
from mixing.methods import Recipe, method_named
from service.domain_sets.adoptions import in_use
from service.domain_sets.repository import require_usable, revision_of
from service.optimizations.checks import (
    CheckedRequest,
    check_answerable,
    check_request,
    rounds_asked,
    shares_of,
)
from service.optimizations.cost import (
    PlannedOptimization,
    check_planned_memory,
    plan_view,
    planned_hours,
    planned_swarm,
)
from service.optimizations.given import GivenSwarms, given_of
from service.optimizations.reuse import ReuseQuestion, reuse_question
from service.optimizations.schemas import OptimizationRequest
from service.optimizations.target import target_model, to_know_view, with_target
from service.optimizations.views import PlanView
from service.training.checks import check_vocabulary
from service.training.device import check_counted, is_counted, worker_device
from store.documents import ShareDocument, TrainingDocument
from store.engine import Database, database_for
from store.problems import Invalid, existing, invalid
from store.settings import Settings
from store.tables import MixtureRow, Revision


@dataclass(frozen=True)
class Uncounted:
    """Architectures, each with what stands before its fields, to be counted first; then the same is asked again."""

    models: tuple[tuple[TrainingDocument, str], ...]


@dataclass(frozen=True)
class _Read:
    """What the store says of a request."""

    checked: CheckedRequest
    revision: Revision
    reuse: ReuseQuestion | None
    given: GivenSwarms | None


def planned(
    settings: Settings, request: OptimizationRequest, dry_run: bool, count_first: bool
) -> PlannedOptimization | PlanView | Uncounted:
    """The optimization that is to be stored, or, for a dry run, what is answered of it.

    ``count_first`` answers Uncounted instead where that is to be done before.

    Raises:
        NotFound, NotReady, NotCounted: the revision or the mixture to go on from.
        Invalid: naming the field at fault.
    """
    checked = check_request(request, settings)
    _check_runs(request, request.runs, settings.max_runs)
    with database_for(settings.resolved_database_url) as database:
        read = _read(database, checked, dry_run)
        optimization = _plan(read, settings.max_runs)
        models = ((checked.document.proxy, "proxy."), (target_model(request), "target."))
        given = tuple((model, prefix) for model, prefix in models if count_first and model is not None)
        if uncounted := tuple(one for one in given if not is_counted(settings, one[0])):
            return Uncounted(uncounted)
        for model, prefix in given:
            check_counted(settings, model, prefix)
        document = with_target(optimization.document, request, settings)
        optimization = replace(optimization, document=document)
        device = worker_device(settings)
        with database.read() as session:
            check_planned_memory(session, optimization, device)
            if dry_run:
                view, swarm = plan_view(session, optimization, device), planned_swarm(session, optimization)
                to_know = to_know_view(document.to_dict(), swarm, device, view.cost)
                return view.model_copy(update={"to_know": to_know})
            return replace(optimization, device_hours=planned_hours(session, optimization, device))


def _read(database: Database, checked: CheckedRequest, dry_run: bool) -> _Read:
    request = checked.request
    with database.read() as session:
        revision = revision_of(session, request.domain_set, request.revision)
        require_usable(session, revision)
        check_vocabulary(checked.start, revision.vocabulary_size, "proxy.start")
        checked = _with_preferred(session, checked, [row.name for row in revision.domains])
        given = given_of(session, revision, checked)
        if given is not None:
            checked = given.checked(checked, len(revision.domains))
        check_answerable(checked, revision)  # before older runs are read, which may be many
        reuse = None
        if checked.document.recipe is not None and given is None:
            reuse = reuse_question(session, revision, checked, dry_run)
        return _Read(checked, revision, reuse, given)


def _with_preferred(session: Session, checked: CheckedRequest, domains: Sequence[str]) -> CheckedRequest:
    """With the weights of the mixture to be near to; raises Invalid for one over other domains."""
    prefer, request = checked.document.prefer, checked.request
    if request.prefer == "in_use":
        adopted = in_use(session, request.domain_set)
        if adopted is None:
            raise Invalid("none_in_use", f"{request.domain_set!r} has no mixture in use.", "prefer")
        prefer = existing(session.get(MixtureRow, adopted.mixture_id), "mixture", adopted.mixture_id).weights
    if prefer is None or isinstance(prefer, str):
        return checked
    try:
        Mixture.of(prefer, over=domains)
    except MixingError as error:
        raise invalid(error, "prefer") from error
    return replace(checked, document=replace(checked.document, prefer=dict(prefer)))


def _plan(read: _Read, maximum_runs: int) -> PlannedOptimization:
    """How many runs it takes, in which rounds, and what is reused."""
    request, recipe = read.checked.request, read.checked.document.recipe
    names = [row.name for row in read.revision.domains]
    domains = len(names)
    method = method_named(request.method)
    shares = tuple(map(ShareDocument.of, shares_of(request, names)))
    document = replace(read.checked.document, shares=shares)
    reuse = None if read.reuse is None else read.reuse.plan(document, request.runs)
    if read.given is not None:
        runs = 0
    elif reuse is not None:
        runs = reuse.plan.new_runs
    else:
        runs = request.runs if request.runs is not None else method.default_runs(domains, recipe)
    _check_runs(request, runs, maximum_runs)
    if recipe is None or read.given is not None:
        needed, rounds = 0, ()
    elif reuse is None:
        needed, rounds = recipe.minimum_runs(domains), _rounds(request, recipe, runs, domains)
    else:
        needed = reuse.plan.least_new_runs
        rounds = _rounds(request, recipe, runs, domains, needed)
    if document.stop_when is not None and recipe is not None and len(rounds) < 2:
        raise Invalid(
            "never_met",
            f"All {runs} runs are in one round, so nothing is measured before the last of them is asked for: ask for"
            " more runs or rounds, or leave the rule out.",
            "stop_when",
        )
    document = replace(
        document,
        runs=runs,
        rounds=rounds,
        minimum_runs=needed,
        reuse=reuse,
    )
    return PlannedOptimization(read.revision.id, document)


def _check_runs(request: OptimizationRequest, runs: int | None, maximum: int) -> None:
    if runs is not None and runs > maximum:
        raise Invalid(
            "too_many_runs",
            f"{method_named(request.method).title} asks for {runs} runs, and at most {maximum} are allowed.",
            "runs",
        )


def _rounds(
    request: OptimizationRequest, recipe: Recipe, runs: int, domains: int, least: int | None = None
) -> tuple[int, ...]:
    method = method_named(request.method)
    count = rounds_asked(request, method)
    if request.rounds is None and request.stop_when is not None:  # as often as the runs allow
        first = recipe.minimum_runs(domains) if least is None else least
        count = max(min(count, runs - max(first, 1) + 1), len(method.rounds))
    try:
        return method.in_rounds(count).split(recipe, runs, domains, least)
    except TooFewRuns as error:
        raise Invalid("too_few_runs", f"{error}.", "runs", needed=error.needed) from error
    except MixingError as error:
        raise invalid(error, "runs") from error
