"""Queries about domain sets, revisions and their preparation jobs. Nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from store.problems import NotFound
from store.tables import DomainSet, Job, Revision


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
