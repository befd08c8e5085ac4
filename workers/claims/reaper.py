"""Taking back the jobs of workers that vanished."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.clock import database_now
from store.engine import Database
from store.jobs import HELD, QUEUED
from store.tables import Job
from workers.claims.claim import InTransaction, retry_or_end
from workers.claims.failures import WORKER_LOST, Failure

BATCH = 100
"""Leases taken back in one transaction, so that a crash of many workers does not hold up the writers."""


@dataclass(frozen=True)
class Reaped:
    """A job taken back, and the state it is in now."""

    job_id: str
    kind: str
    subject: str
    state: str


def reap(database: Database, settled: InTransaction | None = None) -> list[Reaped]:
    """Take back up to `BATCH` expired leases; ``settled`` is called for each in the same transaction.

    A job goes back to the queue, fails as ``worker_lost`` with the last worker it may lose
    (`workers.claims.retries`), or is
    cancelled when that was asked for.
    """
    lease_is_over = (Job.state.in_(HELD), Job.lease_expires_at < database_now())
    expired = (
        select(Job)
        .where(*lease_is_over)
        .order_by(Job.lease_expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    with (
        database.read() as session
    ):  # a write transaction keeps SQLite's only writer, and mostly nothing has expired
        if session.scalars(select(Job.id).where(*lease_is_over).limit(1)).first() is None:
            return []
    with database.write() as session:
        return [_take_back(session, job, settled) for job in session.scalars(expired).all()]


def _take_back(session: Session, job: Job, settled: InTransaction | None) -> Reaped:
    lost = Failure(WORKER_LOST, f"worker {job.worker} stopped renewing its lease", retryable=True)
    retry_or_end(job, lost, reaped=True)
    session.flush()
    if settled is not None and job.state != QUEUED:
        settled(session, job)
    return Reaped(job.id, job.kind, job.subject, job.state)
