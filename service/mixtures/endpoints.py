"""``/v1/mixtures``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from service.http.idempotency import IdempotentRequest, KeyHeader, do_once
from service.http.limits import User
from service.http.routes import (
    JSON,
    ComputeDependency,
    DatabaseDependency,
    SettingsDependency,
    ThreadRoute,
    slow,
)
from service.http.schemas import After, Limit, Page
from service.mixtures import service, token_files
from service.mixtures.evaluation import EvaluateRequest, EvaluationView, evaluation_document
from service.mixtures.exports import (
    ExportQuery,
    ExportView,
    ScheduleRequest,
    ScheduleView,
    export_of,
    schedule_of,
)
from service.mixtures.lineage import LineageView, lineage_document
from service.mixtures.service import MixtureRequest, MixtureSummary, MixtureView
from service.mixtures.token_files import LayoutName, Run, TokenFilesRequest, TokenFilesView

router = APIRouter(prefix="/v1/mixtures", tags=["mixtures"], route_class=ThreadRoute)


@router.post("", status_code=201, response_model=MixtureView)
def create_mixture(body: MixtureRequest, database: DatabaseDependency, key: KeyHeader = None) -> Response:
    """Give a mixture made by hand, to launch it or to compare with."""
    mixture_id = do_once(
        database,
        IdempotentRequest("mixtures", key, body),
        lambda session: service.create_mixture(session, body),
    )
    made = get_mixture(mixture_id, database)
    made.status_code = 201
    made.headers["Location"] = f"/v1/mixtures/{mixture_id}"
    return made


@router.get("")
def list_mixtures(
    database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[MixtureSummary]:
    """Every mixture, newest first."""
    with database.read() as session:
        return service.MIXTURES.page(session, after, limit)


@router.post(":evaluate", response_model=EvaluationView)
@slow
def evaluate(body: EvaluateRequest, settings: SettingsDependency, compute: ComputeDependency) -> Response:
    """What an optimization's runs predict of weights of one's own, and what they break. Stores nothing."""
    return Response(compute(evaluation_document, settings, body), media_type=JSON)


@router.post(":schedule", response_model=ScheduleView)
@slow
def export_schedule(
    body: ScheduleRequest, database: DatabaseDependency, compute: ComputeDependency
) -> ScheduleView:
    """A training run of several phases as a trainer reads it, a mixture each. Stores nothing."""
    return schedule_of(database, compute, body)


@router.get("/{mixture_id}", response_model=MixtureView)
def get_mixture(mixture_id: str, database: DatabaseDependency) -> Response:
    """One mixture with its weights and its evidence."""
    with database.read() as session:
        return Response(service.mixture_document(session, mixture_id), media_type=JSON)


@router.get("/{mixture_id}/lineage", response_model=LineageView)
@slow
def get_lineage(mixture_id: str, settings: SettingsDependency, compute: ComputeDependency) -> Response:
    """Where a mixture comes from: revisions, the maps between them, and every run, whether it counted and why."""
    return Response(compute(lineage_document, settings, mixture_id), media_type=JSON)


@router.get("/{mixture_id}/export", response_model=ExportView)
@slow
def export_mixture(
    mixture_id: str,
    database: DatabaseDependency,
    compute: ComputeDependency,
    query: Annotated[ExportQuery, Depends()],
) -> ExportView:
    """The files a trainer reads, and what it will draw of every domain by its own rounding."""
    return export_of(database, compute, mixture_id, query)


@router.post("/{mixture_id}/token-files", status_code=202, response_model=TokenFilesView)
def write_token_files(
    mixture_id: str, body: TokenFilesRequest, database: DatabaseDependency, user: User
) -> TokenFilesView:
    """Have the workers write token files as a trainer reads them: once for all mixtures where it weighs."""
    with database.write() as session:
        token_files.ask_for_files(session, mixture_id, body.format, body.run, user.name)
    return get_token_files(mixture_id, database, body.format, body.run)


@router.get("/{mixture_id}/token-files", response_model=TokenFilesView)
def get_token_files(
    mixture_id: str, database: DatabaseDependency, format: LayoutName, run: Annotated[Run, Depends()]
) -> TokenFilesView:
    """How far the token files are, and where."""
    with database.read() as session:
        return token_files.describe_files(session, mixture_id, format, run)
