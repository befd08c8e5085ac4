"""How much text a revision's domains have together, added up by the database."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, and_, bindparam, case, cast, func, select
from sqlalchemy.orm import Session

from store.tables import DomainRow, Revision


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
