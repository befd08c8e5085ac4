"""Keyset pages: newest first, by id (ids sort by creation time), so a page stays put while rows are added."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Item = TypeVar("Item")
Row = TypeVar("Row")

MAX_LIMIT = 200
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page, at most 200.")]
After = Annotated[str | None, Query(max_length=64, description="The `next` of the page before.")]


class Page(BaseModel, Generic[Item]):
    """One page of a list; ``next`` is the ``after`` of the following one, null at the end."""

    items: list[Item]
    next: str | None


def page_rows(
    session: Session,
    query: Select[Row],
    key: InstrumentedAttribute[str],
    after: str | None,
    limit: int,
) -> tuple[Sequence[Row], str | None]:
    """Rows of ``query`` in descending order of ``key`` behind ``after``, and the key to go on from."""
    if after is not None:
        query = query.where(key < after)
    rows = session.scalars(query.order_by(key.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    return rows, (getattr(rows[-1], key.key) if more else None)


def page_of(rows: Sequence[Row], following: str | None, view: Callable[[Row], Any]) -> dict[str, Any]:
    """The page document of ``rows``."""
    return {"items": [view(row) for row in rows], "next": following}
