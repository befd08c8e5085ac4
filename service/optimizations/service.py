"""Optimizations: finding them, planning and storing them, cancelling and retrying them. Nothing here commits."""

from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from mixing.errors import MixingError, TooFewRuns
from mixing.methods import Method, Recipe, method_named
from service.domain_sets.repository import require_usable, revision_of
from service.http.schemas import Listing, views_of
from service.optimizations.checks import CheckedRequest, shares_of
from service.optimizations.reuse import PlannedReuse, planned_reuse
from service.optimizations.schemas import OptimizationSummary
from service.training.checks import check_vocabulary
from store import jobs
from store.documents import OptimizationDocument, ShareDocument
from store.problems import Conflict, Invalid, NotFound, invalid
from store.revisions.shared_text import contamination_warnings
from store.tables import DomainSet, MixtureRow, Optimization, Revision, Swarm, database_now

_ONE = (
    select(Optimization)
    .options(joinedload(Optimization.revision).joinedload(Revision.domain_set))
    .where(Optimization.id == bindparam("id"))
)
_SWARM = select(Swarm.id, Swarm.contamination).where(Swarm.optimization_id == bindparam("id"))
_MIXTURES = select(MixtureRow.kind, MixtureRow.id).where(MixtureRow.optimization_id == bindparam("id"))


def optimization_with_id(session: Session, optimization_id: str) -> Optimization:
    """The optimization with its revision and domain set; raises NotFound."""
    row = session.scalars(_ONE, {"id": optimization_id}).first()
    if row is None:
        raise NotFound("optimization", optimization_id)
    return row


def swarm_of(session: Session, optimization_id: str) -> tuple[str | None, list[str]]:
    """The optimization's swarm, once it is sampled, and which tasks were then found to be trained on."""
    row = session.execute(_SWARM, {"id": optimization_id}).first()
    return (None, []) if row is None else (row.id, list(contamination_warnings(row.contamination)))


def mixtures_of(session: Session, optimization_id: str) -> dict[str, str]:
    """Kind of mixture -> id, for the mixtures the optimization made."""
    return dict(session.execute(_MIXTURES, {"id": optimization_id}).all())


_QUERY = (
    select(
        Optimization.id,
        DomainSet.name.label("domain_set"),
        Revision.number.label("revision"),
        Optimization.method,
        Optimization.state,
        Optimization.created_at,
    )
    .join(Revision, Revision.id == Optimization.revision_id)
    .join(DomainSet, DomainSet.id == Revision.domain_set_id)
)
OPTIMIZATIONS = Listing(
    _QUERY, Optimization.id, views_of(OptimizationSummary), DomainSet.name == bindparam("domain_set")
)


@dataclass(frozen=True, slots=True)
class PlannedOptimization:
    """An optimization found to be good and not stored: its runs, in which rounds, and what it reuses."""

    revision_id: str
    document: OptimizationDocument
    reuse: PlannedReuse | None


def plan_optimization(
    session: Session, checked: CheckedRequest, maximum_runs: int, dry_run: bool = False
) -> PlannedOptimization:
    """Find what can be reused and how many runs that takes. Reads only.

    Raises:
        NotFound, NotReady, NotCounted: the revision or the mixture to go on from.
        Invalid: naming the field at fault.
    """
    request, recipe = checked.request, checked.document.recipe
    method = method_named(request.method)
    revision = revision_of(session, request.domain_set, request.revision)
    require_usable(session, revision)
    check_vocabulary(checked.start, revision.vocabulary_size, "proxy.start")
    shares = shares_of(request, [row.name for row in revision.domains])
    document = replace(checked.document, shares=tuple(map(ShareDocument.of, shares)))
    reuse = None
    if recipe is not None:
        reuse = planned_reuse(session, revision, replace(checked, document=document), dry_run)
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
    document = replace(
        document,
        runs=runs,
        rounds=rounds,
        minimum_runs=needed,
        reuse=None if reuse is None else reuse.document(),
    )
    return PlannedOptimization(revision.id, document, reuse)


def create_optimization(session: Session, planned: PlannedOptimization) -> str:
    """Store the optimization; the workers take it from there. Answers its id."""
    document = planned.document
    row = Optimization(
        revision_id=planned.revision_id,
        method=document.method,
        seed=document.seed,
        settings=document.to_dict(),
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
