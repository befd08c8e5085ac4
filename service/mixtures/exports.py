"""A mixture as a trainer reads it: `exchange.formats` over HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from exchange.formats import FORMATS, export
from mixing.errors import MixingError
from service.http.schemas import view_of
from service.mixtures.service import check_repetition, mixture_with_id
from service.mixtures.token_files import written_files
from service.processes.computation import Computation
from store.documents import OptimizationDocument
from store.engine import Database
from store.problems import invalid
from store.tables import Document, Optimization


@dataclass(frozen=True)
class ExportQuery:
    """What an export is asked for with; which of it a format needs, its refusal says."""

    format: Annotated[str, Query(max_length=64, description="One of `/v1/export-formats`.")]
    path: Annotated[
        str,
        Query(
            max_length=4096,
            description="Of a domain's files, `{domain}` its name; the written token files when left out.",
        ),
    ] = ""
    target_tokens: Annotated[
        int | None,
        Query(ge=1, lt=2**63, description="Of the training run; the optimization's when left out."),
    ] = None
    repetition_cap: Annotated[
        float | None, Query(ge=1e-3, le=1e6, description="The optimization's when left out.")
    ] = None
    sequence_length: Annotated[int, Query(ge=1, le=2**24, description="Tokens of a row.")] = 2048
    batch_rows: Annotated[int, Query(ge=1, le=2**24, description="Rows of a training step.")] = 512


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
        "files": {} if query.path else written_files(session, mixture, query.format),
        "tokens": {row.name: row.tokens for row in rows},
        "documents": {row.name: row.documents_of_tokens for row in rows},
    }
