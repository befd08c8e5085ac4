"""What every request and answer of the API has in common, and the pages of its lists.

Lists are keyset pages: newest first, by id (ids sort by creation time), so a page stays put while rows are added.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Select, bindparam
from sqlalchemy.orm import InstrumentedAttribute, Session

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[
    str, Field(pattern=NAME_PATTERN, description="Letters, digits, '.', '_' and '-'; at most 64.")
]
Weights = Mapping[str, float]


def _from_epoch(value: object) -> object:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value


Time = Annotated[datetime, BeforeValidator(_from_epoch)]
"""UTC, ISO 8601 in JSON; seconds since the epoch in the store."""


class RequestModel(BaseModel):
    """A request body: a member nobody knows is an error, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FailureView(BaseModel):
    """Why something failed: a stable code and a sentence."""

    code: str
    detail: str


class ProgressView(BaseModel):
    """How much of a countable piece of work is done."""

    done: int
    total: int
    unit: str


def failure_of(code: str | None, detail: str | None) -> FailureView | None:
    """The failure stored as two columns, or None when nothing failed."""
    return FailureView(code=code, detail=detail or "") if code else None


Item = TypeVar("Item")

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
