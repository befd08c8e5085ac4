"""What is known of the workers, and telling them to stop or to go on."""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.workers.schemas import WorkerView
from store.clock import database_now
from store.jobs import HELD
from store.problems import NotFound
from store.tables import Job, WorkerRow

GONE_SECONDS = 60.0
"""A worker tells every five seconds that it is there."""


def worker_with_id(session: Session, worker_id: str) -> WorkerRow:
    """The worker; raises NotFound."""
    row = session.get(WorkerRow, worker_id)
    if row is None:
        raise NotFound("worker", worker_id)
    return row


def set_state(session: Session, worker_id: str, state: str, reason: str | None = None) -> WorkerRow:
    """Tell a worker what to do; it hears it within seconds. Raises NotFound."""
    row = worker_with_id(session, worker_id)
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
    return WorkerView.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "host": row.host,
            "device": row.device,
            "device_name": row.device_name,
            "memory_bytes": row.memory_bytes,
            "kinds": row.kinds,
            "state": state,
            "reason": row.reason,
            "jobs": jobs,
            "tokens_per_second": row.tokens_per_second,
            "versions": row.versions,
            "started_at": row.started_at,
            "seen_at": row.seen_at,
        }
    )
