"""What every request and answer of the API has in common."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
