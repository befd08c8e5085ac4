"""``/v1/optimizations``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from service.http.events import EVENT_STREAM, Seen, stream
from service.http.idempotency import Changing, Creation, IdempotentRequest, do_once
from service.http.limits import User, check_queue
from service.http.routes import (
    RETRY_AFTER_SECONDS,
    DatabaseDependency,
    SettingsDependency,
    ThreadRoute,
    slow,
)
from service.http.schemas import After, Limit, Page
from service.optimizations import service
from service.optimizations.cost import PlannedOptimization
from service.optimizations.extension import extend, extension_view, planned_extension
from service.optimizations.planning import Uncounted, planned
from service.optimizations.progress import describe
from service.optimizations.schemas import ExtendRequest, OptimizationRequest
from service.optimizations.service import optimization_with_id
from service.optimizations.views import ExtensionView, OptimizationSummary, OptimizationView, PlanView
from service.training.device import check_counted, worker_device
from store import jobs
from store.documents import OptimizationDocument
from store.engine import Database
from store.settings import Settings

router = APIRouter(prefix="/v1/optimizations", tags=["optimizations"], route_class=ThreadRoute)


@router.post(
    "",
    status_code=202,
    response_model=OptimizationView | PlanView,
    responses={200: {"model": PlanView, "description": "With `dry_run`: what would be."}},
)
@slow
def create_optimization(
    body: OptimizationRequest, creation: Annotated[Creation, Depends()]
) -> OptimizationView | PlanView:
    """Ask for a mixture: what is known is reused, the rest sampled, trained, fitted and solved by the workers."""
    database, settings, dry_run = creation.database, creation.settings, creation.dry_run
    request = IdempotentRequest("optimizations", creation.key, body)
    with database.read() as session:
        made = None if dry_run else request.earlier(session)
    if made is None:
        plan = creation.compute(planned, settings, body, dry_run, True)
        if isinstance(plan, Uncounted):
            for model, prefix in plan.models:
                check_counted(settings, model, prefix, creation.compute.ending)
            plan = creation.compute(planned, settings, body, dry_run, False)
        if isinstance(plan, PlanView):
            creation.response.status_code = 200
            return plan
        assert isinstance(plan, PlannedOptimization), "it was counted"
        asked = plan

        def store(session: Session) -> str:
            check_queue(session, settings, creation.user, asked.device_hours)
            return service.create_optimization(session, asked, creation.user.name)

        made = do_once(database, request, store)
    optimization_id = str(made)
    creation.response.headers["Location"] = f"/v1/optimizations/{optimization_id}"
    creation.response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return _view(optimization_id, database, settings)


@router.get("")
def list_optimizations(
    database: DatabaseDependency, after: After = None, limit: Limit = 50
) -> Page[OptimizationSummary]:
    """Every optimization, newest first."""
    with database.read() as session:
        return service.OPTIMIZATIONS.page(session, after, limit)


@router.get(
    "/{optimization_id}",
    response_model=OptimizationView,
    responses={304: {"description": "Nothing changed since the given ETag."}},
)
def get_optimization(
    optimization_id: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """State, stages, counts, rate and ETA; 304 when nothing changed since the given ETag."""
    seen = _seen(optimization_id, database, settings)
    headers = {"ETag": f'"{seen.tag}"'}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if not seen.is_over:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    return Response(seen.data, headers=headers, media_type="application/json")


@router.get(
    "/{optimization_id}/events",
    response_class=StreamingResponse,
    responses=EVENT_STREAM,
)
async def optimization_events(
    optimization_id: str, request: Request, database: DatabaseDependency, settings: SettingsDependency
) -> StreamingResponse:
    """Its document whenever it has changed, as server-sent events named `state`, until it has ended."""
    return await stream(request, lambda: _seen(optimization_id, database, settings))


def _seen(optimization_id: str, database: Database, settings: Settings) -> Seen:
    view = _view(optimization_id, database, settings)
    # The seconds of a stage under way are another number at every poll, and nothing that has happened; the settings
    # may be long, and change with its `updated_at` if at all.
    unsaid = {"settings": True, "progress": {"stages": {"__all__": {"seconds"}}}}
    content = view.model_dump_json(exclude=unsaid)
    return Seen(view.model_dump_json().encode(), content.encode(), view.state in jobs.ENDED)


@router.post("/{optimization_id}:cancel", status_code=202, response_model=OptimizationView)
def cancel_optimization(optimization_id: str, changing: Annotated[Changing, Depends()]) -> OptimizationView:
    """Stop it; finished runs stay and ``:retry`` goes on with them."""
    changing.once(
        f"optimizations/{optimization_id}:cancel", lambda session: service.cancel(session, optimization_id)
    )
    return _view(optimization_id, changing.database, changing.settings)


@router.post("/{optimization_id}:finish", status_code=202, response_model=OptimizationView)
def finish_optimization(optimization_id: str, changing: Annotated[Changing, Depends()]) -> OptimizationView:
    """Fit and solve with the results that are in, of runs that are trained elsewhere."""
    changing.once(
        f"optimizations/{optimization_id}:finish", lambda session: service.finish(session, optimization_id)
    )
    return _view(optimization_id, changing.database, changing.settings)


@router.post("/{optimization_id}:retry", status_code=202, response_model=OptimizationView)
def retry_optimization(
    optimization_id: str, changing: Annotated[Changing, Depends()], user: User
) -> OptimizationView:
    """Go on with a failed or cancelled optimization, which counts as yours from then on."""
    changing.once(
        f"optimizations/{optimization_id}:retry",
        lambda session: service.retry(session, optimization_id, changing.settings, user),
    )
    return _view(optimization_id, changing.database, changing.settings)


@router.post(
    "/{optimization_id}:extend",
    status_code=202,
    response_model=OptimizationView | ExtensionView,
    responses={200: {"model": ExtensionView, "description": "With `dry_run`: what would be."}},
)
def extend_optimization(
    optimization_id: str, body: ExtendRequest, creation: Annotated[Creation, Depends()]
) -> OptimizationView | ExtensionView:
    """Train more runs for one that has an answer, where they change it most, and answer again over all."""
    database, settings = creation.database, creation.settings
    request = IdempotentRequest(f"optimizations/{optimization_id}:extend", creation.key, body)
    device = worker_device(settings)
    with database.read() as session:
        made = None if creation.dry_run else request.earlier(session)
        extension = None
        if made is None:
            extension = planned_extension(session, optimization_id, body, settings, device)
            if creation.dry_run:
                creation.response.status_code = 200
                return extension_view(extension, OptimizationDocument.of(extension.row))
    if extension is not None:
        planned = extension

        def store(session: Session) -> str:
            extend(session, planned, settings, creation.user)
            return optimization_id

        do_once(database, request, store)
    return _view(optimization_id, database, settings)


def _view(optimization_id: str, database: Database, settings: Settings) -> OptimizationView:
    with database.read() as session:
        return describe(session, optimization_with_id(session, optimization_id), worker_device(settings))
