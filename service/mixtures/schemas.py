"""Requests and answers about mixtures."""

from typing import Any

from pydantic import BaseModel, Field

from service.http.schemas import Name, RequestModel, Time, Weights


class MixtureRequest(RequestModel):
    """A mixture made by hand, or the one now in use: every domain of the revision with its weight."""

    domain_set: Name
    revision: int | None = Field(default=None, ge=1, lt=2**31)
    name: Name
    weights: Weights = Field(min_length=1, max_length=20_000)


class MixtureSummary(BaseModel):
    """A mixture in a list."""

    id: str
    optimization_id: str | None
    domain_set: str
    revision: int
    kind: str
    name: str | None
    created_at: Time


class MixtureView(MixtureSummary):
    """Weights by domain name; a proposed mixture carries its evidence."""

    weights: Weights
    evidence: dict[str, Any] | None
