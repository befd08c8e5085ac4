"""The pages of the list of optimizations."""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from service.http.schemas import Listing
from service.optimizations.schemas import OptimizationSummary
from store.tables import DomainSet, Optimization, Revision

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
