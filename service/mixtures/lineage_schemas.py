"""Answers about where a mixture comes from."""

from typing import Any

from pydantic import BaseModel

from service.domain_sets.schemas import ChangesView
from service.http.schemas import Time, Weights
from service.mixtures.schemas import MixtureSummary


class MapRow(BaseModel):
    """A domain that was not simply kept: ``comes_from`` gives the part of each old domain's weight that goes to it.

    Null where the tokens that decide it are not counted. A removed domain's weight goes nowhere.
    """

    domain: str
    change: str
    comes_from: dict[str, float | None]


class RunLineage(BaseModel):
    """A run of the lineage, and whether it counted for the mixture."""

    id: str
    index: int
    state: str
    counted: bool
    why: str


class OptimizationLineage(BaseModel):
    """An optimization of one of the revisions, with its runs; ``plan`` is what it reused, null for nothing."""

    id: str
    method: str
    state: str
    seed: int
    created_at: Time
    swarm_id: str | None
    mixtures: list[MixtureSummary]
    plan: dict[str, Any] | None
    runs: list[RunLineage]


class RevisionLineage(BaseModel):
    """A revision of the chain: what changed against its parent, as a map, and what was asked of it."""

    number: int
    parent: int | None
    created_at: Time
    domains: int
    tokens: int | None
    changes: ChangesView
    map: list[MapRow]
    optimizations: list[OptimizationLineage]


class StartLineage(BaseModel):
    """A mixture whose ratios an optimization kept: ``groups`` are its virtual domains."""

    optimization_id: str
    mixture: MixtureSummary
    kind: str
    groups: dict[str, Weights]


class LineageView(BaseModel):
    """Where a mixture comes from: the revisions from its own back to the first, and the mixtures it goes on from."""

    mixture: MixtureSummary
    starts: list[StartLineage]
    revisions: list[RevisionLineage]
