"""``/v1/launches``."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from service.http.idempotency import IdempotentRequest, KeyHeader, do_once
from service.http.routes import RETRY_AFTER_SECONDS, DatabaseDependency, SettingsDependency, ThreadRoute, slow
from service.http.schemas import After, Limit, Page
from service.launches import service
from service.launches.service import LaunchRequest, LaunchView
from service.training.counts import check_counted
from service.training.device import worker_device

router = APIRouter(prefix="/v1/launches", tags=["launches"], route_class=ThreadRoute)


@router.post("", status_code=202, response_model=LaunchView)
@slow
def create_launch(
    body: LaunchRequest,
    response: Response,
    database: DatabaseDependency,
    settings: SettingsDependency,
    key: KeyHeader = None,
) -> LaunchView:
    """Train the full model on a mixture."""
    checked = service.check_request(body, settings)
    check_counted(settings, checked.training or None, "")
    device = worker_device(settings)
    launch_id = do_once(
        database,
        IdempotentRequest("launches", key, body),
        lambda session: service.create_launch(session, checked, device),
    )
    response.headers["Location"] = f"/v1/launches/{launch_id}"
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return get_launch(launch_id, database)


@router.get("", response_model=Page[LaunchView])
def list_launches(
    database: DatabaseDependency,
    optimization: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
    limit: Limit = 50,
) -> dict[str, object]:
    """Launches, newest first; those of one optimization's mixtures if it is named."""
    with database.read() as session:
        views, following = service.launch_page(session, after, limit, optimization)
    return {"items": views, "next": following}


@router.get("/{launch_id}", response_model=LaunchView)
def get_launch(launch_id: str, database: DatabaseDependency) -> LaunchView:
    """One launch: its progress, then what was measured on its model."""
    with database.read() as session:
        return service.describe_launch(session, launch_id)


@router.post("/{launch_id}:cancel", status_code=202, response_model=LaunchView)
def cancel_launch(launch_id: str, database: DatabaseDependency, key: KeyHeader = None) -> LaunchView:
    """Stop it."""
    request = IdempotentRequest(f"launches/{launch_id}:cancel", key)
    do_once(database, request, lambda session: service.cancel(session, launch_id).id)
    return get_launch(launch_id, database)


@router.post("/{launch_id}:retry", status_code=202, response_model=LaunchView)
def retry_launch(launch_id: str, database: DatabaseDependency, key: KeyHeader = None) -> LaunchView:
    """Go on with it, from its last checkpoint."""
    request = IdempotentRequest(f"launches/{launch_id}:retry", key)
    do_once(database, request, lambda session: service.retry(session, launch_id).id)
    return get_launch(launch_id, database)
