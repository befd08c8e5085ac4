"""What every request and answer of the API has in common, and the pages of its lists.

Lists are keyset pages: newest first, by id (ids sort by creation time), so a page stays put while rows are added.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar, get_args

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy import ColumnElement, Select, bindparam
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
    """A request body: a member nobody knows is an error, and so is a value of another kind, ``"5"`` for 5."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        """JSON has one kind of number: ``1e9`` is a whole one."""
        if not isinstance(value, dict):
            return value
        return {
            name: int(item)
            if isinstance(item, float) and item.is_integer() and _is_whole(cls, name)
            else item
            for name, item in value.items()
        }


def _is_whole(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and int in (field.annotation, *get_args(field.annotation))


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


View = TypeVar("View", bound=BaseModel)


_ABSENT = object()


def view_of(kind: type[View], *sources: Any, **given: object) -> View:
    """The view of a row, or of several things: each field is the first's that has its name, unless ``given``."""
    own = dict(given)
    for name in kind.model_fields.keys() - given.keys():
        for source in sources:
            if (value := getattr(source, name, _ABSENT)) is not _ABSENT:
                own[name] = value
                break
    return kind.model_validate(own)


def views_of(kind: type[View]) -> Callable[[Session, Sequence[Any]], list[View]]:
    """What makes views of rows that have all of their fields."""
    return lambda _session, rows: [view_of(kind, row) for row in rows]


class Listing(Generic[View]):
    """The pages of one list: columns of rows in descending order of ``key``, the first of the columns, as ``views``.

    The list is narrowed by ``only`` where the values it asks for are given. The statements are made once: making one
    and finding it in SQLAlchemy's cache costs more than running it.
    """

    def __init__(
        self,
        query: Select[*tuple[Any, ...]],
        key: InstrumentedAttribute[str],
        views: Callable[[Session, Sequence[Any]], list[View]],
        only: ColumnElement[bool] | None = None,
    ) -> None:
        self._views = views
        query = query.order_by(key.desc()).limit(bindparam("limit"))
        queries = {False: query, True: query if only is None else query.where(only)}
        self._queries = {
            (is_narrowed, is_behind): one.where(key < bindparam("after")) if is_behind else one
            for is_narrowed, one in queries.items()
            for is_behind in (False, True)
        }

    def page(self, session: Session, after: str | None, limit: int, **values: object) -> Page[View]:
        """What is behind ``after``, with the key to go on from; ``values`` are the query's own parameters."""
        given = {name: value for name, value in values.items() if value is not None}
        query = self._queries[bool(given), after is not None]
        rows = session.execute(query, {**given, "after": after, "limit": limit + 1}).all()
        following = rows[limit - 1][0] if len(rows) > limit else None
        return Page[Any](items=self._views(session, rows[:limit]), next=following)
