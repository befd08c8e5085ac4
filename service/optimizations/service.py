"""Optimizations: finding them, planning and storing them, cancelling and retrying them. Nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from service.domain_sets.repository import require_usable
from service.http.limits import check_queue
from service.http.schemas import Listing, views_of
from service.optimizations.cost import PlannedOptimization
from service.optimizations.views import OptimizationSummary
from service.tokens import Principal
from store import jobs
from store.documents import SwarmDocument, TaskDocument
from store.problems import Conflict, existing
from store.revisions.shared_text import contamination_warnings, uncompared_warnings
from store.settings import Settings
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
    return existing(session.scalars(_ONE, {"id": optimization_id}).first(), "optimization", optimization_id)


def swarm_of(
    session: Session, optimization_id: str, tasks: Sequence[TaskDocument]
) -> tuple[str | None, list[str]]:
    """The optimization's swarm, once it is sampled, and which tasks are trained on or were not looked for."""
    row = session.execute(_SWARM, {"id": optimization_id}).first()
    if row is None:
        return None, list(uncompared_warnings([task for task in tasks if not task.path], None))
    found = row.contamination
    return row.id, [*contamination_warnings(found), *uncompared_warnings(tasks, found)]


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


def create_optimization(session: Session, planned: PlannedOptimization, user: str) -> str:
    """Store the optimization of a user; the workers take it from there. Answers its id."""
    document = planned.document
    row = Optimization(
        revision_id=planned.revision_id,
        method=document.method,
        seed=document.seed,
        user_name=user,
        device_hours=planned.device_hours,
        settings=document.to_dict(),
    )
    session.add(row)
    session.flush()
    return row.id


def cancel(session: Session, optimization_id: str) -> Optimization:
    """Stop the optimization: nothing new starts, what runs ends at its next heartbeat, what is stored stays."""
    row = optimization_with_id(session, optimization_id)
    if row.state in jobs.ENDED:
        raise Conflict("already_ended", f"The optimization has {row.state} already.")
    jobs.cancel_jobs(session, row.id)
    row.state = jobs.CANCELLED
    _touch(row)
    return row


def finish(session: Session, optimization_id: str) -> Optimization:
    """Go on with the results that are in: nothing more is waited for or sampled.

    Raises Conflict for an optimization that waits for no results, or with too few of them.
    """
    row = optimization_with_id(session, optimization_id)
    document = SwarmDocument.of(row)
    if not document.is_elsewhere or row.state not in jobs.LIVE:
        raise Conflict(
            "nothing_waits", "Only an optimization that waits for results from elsewhere is finished."
        )
    counts = jobs.count_jobs(session, row.id)
    if any(counts.get((jobs.SAMPLE_SWARM, state)) for state in jobs.LIVE):
        raise Conflict("sampling", "A round is being sampled; ask again in a moment.")
    finished = counts.get((jobs.PROXY_RUN, jobs.SUCCEEDED), 0)
    if finished < document.minimum_runs:
        raise Conflict(
            "too_few_runs",
            f"The results of {finished} runs are in, and the regression needs {document.minimum_runs}.",
            needed=document.minimum_runs,
        )
    sampled = counts.get((jobs.SAMPLE_SWARM, jobs.SUCCEEDED), 0)
    rounds = document.rounds[:sampled]
    row.settings = {**row.settings, "rounds": list(rounds), "runs": sum(rounds)}
    jobs.give_up_results(session, row.id)
    _touch(row)
    return row


def retry(session: Session, optimization_id: str, settings: Settings, user: Principal) -> Optimization:
    """Go on with a failed or cancelled optimization; runs that finished are kept, not trained again.

    From now on it is the user's who asks for that: raises TooManyRequests where they have as much as they may have.
    """
    row = optimization_with_id(session, optimization_id)
    if row.state not in (jobs.FAILED, jobs.CANCELLED):
        raise Conflict(
            "not_ended", f"Only a failed or cancelled optimization is retried; this is {row.state}."
        )
    require_usable(session, row.revision)
    check_queue(session, settings, user, row.device_hours)
    row.user_name = user.name
    jobs.requeue_jobs(session, row.id, user=user.name)
    if SwarmDocument.of(row).is_elsewhere:
        jobs.await_results(session, row.id)
    row.state = jobs.QUEUED
    row.failure_code = row.failure_detail = None
    _touch(row)
    return row


def _touch(row: Optimization) -> None:
    row.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue] - an SQL expression, set on flush
