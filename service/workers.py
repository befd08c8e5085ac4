"""``/v1/workers``: what is known of the workers, and telling them to stop or to go on."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.http.routes import DatabaseDependency, ThreadRoute
from service.http.schemas import After, Limit, Listing, Page, RequestModel, Time, view_of
from store.jobs import HELD
from store.problems import existing
from store.tables import GONE_SECONDS, Job, WorkerRow, database_now


class PauseRequest(RequestModel):
    """Why a worker is to stop; shown to whoever wonders."""

    reason: str | None = Field(default=None, max_length=1000)


class WorkerView(BaseModel):
    """A slot of a worker machine: one job, or one wave of runs, at a time on one device.

    ``state`` is what it does: ``gone`` is one that ended or was not seen for a minute, ``draining`` finishes what it
    has, ``paused`` gave it back.
    """

    id: str
    name: str
    host: str
    device: str
    device_name: str | None
    memory_bytes: int | None
    kinds: list[str] | None = Field(description="The kinds of job it takes; null: any.")
    state: Literal["idle", "busy", "draining", "paused", "gone"]
    reason: str | None
    jobs: int = Field(description="Jobs it holds now: the runs of a wave are several.")
    tokens_per_second: float | None = Field(description="What it last trained at.")
    versions: dict[str, str]
    started_at: Time
    seen_at: Time


def set_state(session: Session, worker_id: str, state: str, reason: str | None = None) -> WorkerRow:
    """Tell a worker what to do; it hears it within seconds. Raises NotFound."""
    row = existing(session.get(WorkerRow, worker_id), "worker", worker_id)
    row.state, row.reason = state, reason
    row.failures = []  # what failed before somebody decided counts no more; nor does it end a pause by itself
    session.flush()
    return row


def describe_workers(session: Session, rows: Sequence[WorkerRow]) -> list[WorkerView]:
    """The workers with what they hold now."""
    # The worker of a job is its slot's name and the process that claimed it.
    holders = session.execute(
        select(Job.worker, func.count()).where(Job.state.in_(HELD)).group_by(Job.worker)
    ).all()
    held: Counter[str] = Counter()
    for holder, count in holders:
        held[str(holder).rpartition(":")[0]] += count
    now = session.scalar(select(database_now())) or 0.0
    return [_describe(row, held[row.name], now) for row in rows]


def _describe(row: WorkerRow, jobs: int, now: float) -> WorkerView:
    state = {"active": "busy" if jobs else "idle"}.get(row.state, row.state)
    if row.left_at is not None or row.seen_at < now - GONE_SECONDS:
        state = "paused" if row.state == "paused" else "gone"
    return view_of(WorkerView, row, jobs=jobs, state=state)


WORKERS = Listing(
    select(WorkerRow.id, WorkerRow),
    WorkerRow.id,
    lambda session, rows: describe_workers(session, [row for _, row in rows]),
)


router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=ThreadRoute)


@router.get("")
def list_workers(database: DatabaseDependency, after: After = None, limit: Limit = 50) -> Page[WorkerView]:
    """Every slot of every machine seen in the last week, newest first."""
    with database.read() as session:
        return WORKERS.page(session, after, limit)


@router.get("/{worker_id}", response_model=WorkerView)
def get_worker(worker_id: str, database: DatabaseDependency) -> WorkerView:
    """One slot."""
    with database.read() as session:
        row = existing(session.get(WorkerRow, worker_id), "worker", worker_id)
        return describe_workers(session, [row])[0]


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
        row = set_state(session, worker_id, state, reason)
        return describe_workers(session, [row])[0]
