"""Queries about optimizations, their pages, jobs and results. Nothing here commits."""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from service.http.schemas import Listing
from service.optimizations.schemas import OptimizationSummary
from store.problems import NotFound
from store.tables import DomainSet, MixtureRow, Optimization, Revision, Swarm

_ONE = (
    select(Optimization)
    .options(joinedload(Optimization.revision).joinedload(Revision.domain_set))
    .where(Optimization.id == bindparam("id"))
)
_SWARM_ID = select(Swarm.id).where(Swarm.optimization_id == bindparam("id"))
_MIXTURES = select(MixtureRow.kind, MixtureRow.id).where(MixtureRow.optimization_id == bindparam("id"))


def optimization_with_id(session: Session, optimization_id: str) -> Optimization:
    """The optimization with its revision and domain set; raises NotFound."""
    row = session.scalars(_ONE, {"id": optimization_id}).first()
    if row is None:
        raise NotFound("optimization", optimization_id)
    return row


def swarm_id_of(session: Session, optimization_id: str) -> str | None:
    """The optimization's swarm, once it is sampled."""
    return session.scalar(_SWARM_ID, {"id": optimization_id})


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
_ALL = Listing(_QUERY, Optimization.id)
_OF_SET = Listing(_QUERY.where(DomainSet.name == bindparam("domain_set")), Optimization.id)


def optimization_page(
    session: Session, after: str | None, limit: int, domain_set: str | None = None
) -> tuple[list[OptimizationSummary], str | None]:
    """Optimizations, newest first, and the key to go on from; those of one domain set if it is named."""
    if domain_set is None:
        rows, following = _ALL.page(session, after, limit)
    else:
        rows, following = _OF_SET.page(session, after, limit, domain_set=domain_set)
    return [OptimizationSummary.model_validate(row._asdict()) for row in rows], following
