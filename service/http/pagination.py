"""Keyset pages: newest first, by id (ids sort by creation time), so a page stays put while rows are added."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Select, bindparam
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


class Listing:
    """The pages of one list: columns of rows in descending order of ``key``, the first of the columns.

    The statements are made once: making one and finding it in SQLAlchemy's cache costs more than running it.
    """

    def __init__(self, query: Select[*tuple[Any, ...]], key: InstrumentedAttribute[str]) -> None:
        self._first = query.order_by(key.desc()).limit(bindparam("limit"))
        self._following = self._first.where(key < bindparam("after"))

    def page(
        self, session: Session, after: str | None, limit: int, **values: object
    ) -> tuple[Sequence[Any], str | None]:
        """Rows behind ``after``, and the key to go on from; ``values`` are the query's own parameters."""
        query = self._first if after is None else self._following
        rows = session.execute(query, {**values, "after": after, "limit": limit + 1}).all()
        more = len(rows) > limit
        rows = rows[:limit]
        return rows, (rows[-1][0] if more else None)


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
