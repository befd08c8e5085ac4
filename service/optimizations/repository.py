"""Queries about optimizations, their jobs and results. Nothing here commits."""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session, joinedload

from store.problems import NotFound
from store.tables import MixtureRow, Optimization, Revision, Swarm

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
