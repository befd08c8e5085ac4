"""``/v1/workers``."""

from typing import Any

from fastapi import APIRouter
from sqlalchemy import select

from service.http.dependencies import DatabaseDependency
from service.http.pagination import After, Limit, Page, page_rows
from service.http.thread_route import ThreadRoute
from service.workers import service
from service.workers.schemas import PauseRequest, WorkerView
from store.tables import WorkerRow

router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=ThreadRoute)


@router.get("", response_model=Page[WorkerView])
def list_workers(database: DatabaseDependency, after: After = None, limit: Limit = 50) -> dict[str, Any]:
    """Every slot of every machine seen in the last week, newest first."""
    with database.read() as session:
        rows, following = page_rows(session, select(WorkerRow), WorkerRow.id, after, limit)
        return {"items": service.describe_workers(session, rows), "next": following}


@router.get("/{worker_id}", response_model=WorkerView)
def get_worker(worker_id: str, database: DatabaseDependency) -> WorkerView:
    """One slot."""
    with database.read() as session:
        return service.describe_workers(session, [service.worker_with_id(session, worker_id)])[0]


@router.post("/{worker_id}:drain", status_code=202, response_model=WorkerView)
def drain_worker(worker_id: str, database: DatabaseDependency) -> WorkerView:
    """Have it finish what it holds and take nothing more, until it is resumed or restarted."""
    return _tell(database, worker_id, "draining", None)


@router.post("/{worker_id}:pause", status_code=202, response_model=WorkerView)
def pause_worker(
    worker_id: str, database: DatabaseDependency, request: PauseRequest | None = None
) -> WorkerView:
    """Have it give back what it holds, to go on elsewhere from the last checkpoint, and take nothing more.

    It stays paused after a restart.
    """
    reason = request.reason if request is not None else None
    return _tell(database, worker_id, "paused", reason or "paused by hand")


@router.post("/{worker_id}:resume", status_code=202, response_model=WorkerView)
def resume_worker(worker_id: str, database: DatabaseDependency) -> WorkerView:
    """Have it work again; what failed on it before is forgotten."""
    return _tell(database, worker_id, "active", None)


def _tell(database: DatabaseDependency, worker_id: str, state: str, reason: str | None) -> WorkerView:
    with database.write() as session:
        row = service.set_state(session, worker_id, state, reason)
        return service.describe_workers(session, [row])[0]
