"""A mixture as a trainer reads it: `exchange.formats` over HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from exchange.formats import FORMATS, Blend, export, export_schedule
from mixing.errors import MixingError
from service.http.schemas import RequestModel, view_of
from service.mixtures.service import check_epochs, check_repetition, mixture_with_id
from service.mixtures.token_files import MOST_TOKENS, Run, written_files
from service.processes.computation import Computation
from store.documents import OptimizationDocument
from store.engine import Database
from store.problems import Invalid, invalid
from store.tables import Document, Optimization


@dataclass(frozen=True, kw_only=True)
class ExportQuery(Run):
    """What an export is asked for with; which of it a format needs, its refusal says."""

    format: Annotated[str, Query(max_length=64, description="One of `/v1/export-formats`.")]
    path: Annotated[
        str,
        Query(
            max_length=4096,
            description="Of a domain's files, `{domain}` its name; the written token files when left out.",
        ),
    ] = ""
    repetition_cap: Annotated[
        float | None, Query(ge=1e-3, le=1e6, description="The optimization's when left out.")
    ] = None


class FormatView(BaseModel):
    """A format: the trainer with its version, what a weight weighs, and how what it draws was checked."""

    name: str
    title: str
    unit: str
    exact: bool = Field(description="Whether the draws follow from the files alone; else they are by chance.")
    checked: str


class DrawnView(BaseModel):
    """A domain: its weight, the share that is drawn of it, and how often its text is read."""

    name: str
    weight: float
    realised: float
    error: float
    tokens: float | None
    epochs: float | None


class RealisedView(BaseModel):
    """What the trainer draws by its own rounding; tokens and epochs are null where no target is known."""

    format: str
    exact: bool
    checked: str
    target_tokens: int | None
    largest_error: float
    domains: list[DrawnView]


class ExportView(BaseModel):
    """Files by name, and what the trainer draws of them."""

    files: dict[str, str]
    realised: RealisedView


class PhaseRequest(RequestModel):
    """A stretch of the training on one mixture."""

    mixture_id: str = Field(max_length=64)
    tokens: int = Field(ge=1, le=MOST_TOKENS)


class ScheduleRequest(RequestModel):
    """Mixtures of one revision that a training run reads one after the other."""

    format: str = Field(max_length=64, description="One of `/v1/export-formats`.")
    phases: Annotated[list[PhaseRequest], Field(min_length=2, max_length=20)]
    path: str = Field(
        default="", max_length=4096, description="As of an export; the written token files when left out."
    )
    repetition_cap: float | None = Field(
        default=None,
        ge=1e-3,
        le=1e6,
        description="Over all phases together; the lowest of their optimizations when left out.",
    )
    sequence_length: int = Field(default=2048, ge=1, le=2**24)
    batch_rows: int = Field(default=512, ge=1, le=2**24)


class ScheduleView(BaseModel):
    """Files by name, in a folder a phase where the format holds one mixture; what is drawn in each and in all."""

    files: dict[str, str]
    phases: list[RealisedView]
    realised: RealisedView


def list_formats() -> list[FormatView]:
    """Every format."""
    return [view_of(FormatView, each) for each in FORMATS.values()]


def export_of(database: Database, compute: Computation, mixture_id: str, query: ExportQuery) -> ExportView:
    """The mixture in a format; following a trainer's draws may take seconds, so it is a computation.

    Raises a Problem: NotFound; Invalid, or what the computation makes of it, for what the format cannot hold or was
    not told, and for a domain over its cap.
    """
    with database.read() as session:
        weights, known = _known(session, mixture_id, query)
    return compute(_made, query.format, weights, known)


def schedule_of(database: Database, compute: Computation, request: ScheduleRequest) -> ScheduleView:
    """A mixture a phase in a format: a computation.

    Raises a Problem: NotFound; Invalid for mixtures of several revisions, and as `export_of`.
    """
    with database.read() as session:
        mixtures = [mixture_with_id(session, phase.mixture_id) for phase in request.phases]
        revisions = {mixture.revision_id for mixture in mixtures}
        if len(revisions) > 1:
            raise Invalid("other_revision", "The phases are over different revisions.", "phases")
        known = [
            _known(session, phase.mixture_id, _query_of(request, phase.tokens))[1] for phase in request.phases
        ]
        caps = [one["repetition_cap"] for one in known if one["repetition_cap"] is not None]
        weights = [mixture.weights for mixture in mixtures]
        if caps:
            total = sum(phase.tokens for phase in request.phases)
            shares = [phase.tokens / total for phase in request.phases]
            together = {
                name: sum(share * each[name] for share, each in zip(shares, weights, strict=True))
                for name in weights[0]
            }
            check_epochs(mixtures[0].revision, together, total, min(caps))
    return compute(_scheduled, request.format, weights, known)


def _query_of(request: ScheduleRequest, tokens: int) -> ExportQuery:
    shared = request.model_dump(exclude={"phases"})
    return ExportQuery(**shared, target_tokens=tokens)


def _scheduled(
    name: str, weights: Sequence[Mapping[str, float]], known: Sequence[Mapping[str, Any]]
) -> ScheduleView:
    try:
        phases = [Blend.of(each, **run) for each, run in zip(weights, known, strict=True)]
        made = export_schedule(phases, name)
    except MixingError as error:
        raise invalid(error, "path" if error.field == "paths" else None) from error
    drawn = [phase.to_dict() for phase in made.phases]
    return ScheduleView.model_validate(
        {"files": made.files, "phases": drawn, "realised": made.whole.to_dict()}
    )


def _made(name: str, weights: Mapping[str, float], known: Mapping[str, Any]) -> ExportView:
    try:
        made = export(weights, name, **known)
    except MixingError as error:
        raise invalid(error, "path" if error.field == "paths" else None) from error
    return ExportView.model_validate({"files": made.files, "realised": made.realised.to_dict()})


def _known(session: Session, mixture_id: str, query: ExportQuery) -> tuple[Document, Document]:
    """The weights, and what `Blend.of` takes beside them: as asked for, else as the mixture was solved for."""
    mixture = mixture_with_id(session, mixture_id)
    known = {part.name: getattr(query, part.name) for part in fields(query) if part.name != "format"}
    if mixture.optimization_id is not None:
        solved = OptimizationDocument.of(session.get_one(Optimization, mixture.optimization_id))
        known["target_tokens"] = query.target_tokens or round(solved.target_tokens)
        known["repetition_cap"] = query.repetition_cap or solved.repetition_cap
    check_repetition(mixture, known["target_tokens"], known["repetition_cap"])
    rows = mixture.revision.domains
    return mixture.weights, {
        **known,
        "files": {} if query.path else written_files(session, mixture, query.format, query),
        "tokens": {row.name: row.tokens for row in rows},
        "documents": {row.name: row.documents_of_tokens for row in rows},
    }
