"""Queries about domain sets, revisions, their text and their preparation. Nothing here commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, and_, bindparam, case, cast, func, select
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from store import jobs
from store.problems import Conflict, NotFound, NotReady
from store.revisions.preparation import preparation_failure
from store.tables import DomainRow, DomainSet, Job, Revision


def domain_set_named(session: Session, name: str) -> DomainSet:
    """The domain set ``name``; raises NotFound."""
    row = session.scalar(select(DomainSet).where(DomainSet.name == name))
    if row is None:
        raise NotFound("domain set", name)
    return row


def revision_of(session: Session, name: str, number: int | None = None) -> Revision:
    """Revision ``number`` of the domain set ``name`` (its latest when None), domains loaded; raises NotFound."""
    domain_set = domain_set_named(session, name)
    query = (
        select(Revision)
        .where(Revision.domain_set_id == domain_set.id)
        .options(selectinload(Revision.domains), joinedload(Revision.domain_set))
        .order_by(Revision.number.desc())
        .limit(1)
    )
    if number is not None:
        query = query.where(Revision.number == number)
    row = session.scalar(query)
    if row is None:
        raise NotFound("revision", f"{name}/{number}")
    return row


_JOBS_OF = (
    select(Job)
    .where(Job.owner == bindparam("owner"))
    .order_by(Job.priority, Job.position, Job.created_at)
    .options(load_only(Job.subject, Job.state, Job.progress, Job.failure_code, Job.failure_detail))
)


def jobs_of(session: Session, owner: str) -> Sequence[Job]:
    """Every job that works for ``owner``, in the order it is claimed: what it is about and how far it is."""
    return session.scalars(_JOBS_OF, {"owner": owner}).all()


@dataclass(frozen=True, slots=True)
class CountedText:
    """Of all ``domains``; ``evaluated_bytes`` are what a run reads of their held-out slices."""

    domains: int
    is_complete: bool
    tokens: int
    size_bytes: int
    evaluated_bytes: int


_LIMIT = bindparam("evaluation_bytes", type_=BigInteger)
_COUNTS = (DomainRow.counted_tokens, DomainRow.counted_bytes, DomainRow.held_out_bytes)
_QUERY = select(
    func.count(),
    func.count(case((and_(*(count.is_not(None) for count in _COUNTS)), 1))),
    func.sum(DomainRow.counted_tokens),
    func.sum(DomainRow.counted_bytes),
    func.sum(
        case((DomainRow.held_out_bytes < _LIMIT, DomainRow.held_out_bytes), else_=cast(_LIMIT, BigInteger))
    ),
).where(DomainRow.revision_id == bindparam("revision"))


def counted_text(session: Session, revision: Revision) -> CountedText:
    """What is counted so far; complete once every domain is."""
    wanted = {"revision": revision.id, "evaluation_bytes": revision.evaluation_bytes}
    domains, counted, tokens, size_bytes, evaluated = session.execute(_QUERY, wanted).one()
    return CountedText(
        domains, domains == counted, int(tokens or 0), int(size_bytes or 0), int(evaluated or 0)
    )


def require_usable(session: Session, revision: Revision) -> None:
    """Raise NotReady when the revision's preparation failed; one still under way is fine, jobs wait for it."""
    work = jobs_of(session, revision.id)
    if any(job.state in (jobs.FAILED, jobs.CANCELLED) for job in work):
        code, detail = preparation_failure(revision, work) or ("revision_cancelled", "it was cancelled.")
        raise NotReady(
            code,
            f"Revision {revision.number} of {revision.domain_set.name!r} cannot be used: {detail}",
            "revision",
        )


def retry_preparation(session: Session, name: str, number: int) -> Revision:
    """Queue the failed parts of a revision's preparation again, for when its files were put right."""
    revision = revision_of(session, name, number)
    if jobs.requeue_jobs(session, revision.id) == 0:
        raise Conflict("nothing_to_retry", f"No part of revision {number} of {name!r} has failed.")
    return revision
