"""What became of each attempt at a job, one row each: jobs are queued again and forget, counters must not."""

from typing import Final

from sqlalchemy import case, update
from sqlalchemy.orm import Session, object_session

from store.clock import database_now
from store.jobs import SUCCEEDED
from store.tables import Attempt, Job

RETRIED: Final = "retried"
RELEASED: Final = "released"


def note_attempt(job: Job, outcome: str, failure_code: str | None = None, reaped: bool = False) -> None:
    """Store how the attempt that holds ``job`` ends now, in the transaction that ends it.

    ``outcome`` is the job's end state, ``retried`` or, where a worker that shuts down gives it back, ``released``.
    ``reaped`` says that the lease ran out and was taken back; such an attempt counts until its lease's end.
    """
    session = object_session(job)
    if session is None:
        raise RuntimeError(f"job {job.id} belongs to no session")
    now = database_now()
    lease_end = job.lease_expires_at
    ended = now if lease_end is None else case((now > lease_end, lease_end), else_=now)
    session.add(
        Attempt(
            job_id=job.id,
            kind=job.kind,
            number=job.attempt,
            worker=job.worker,
            outcome=outcome,
            failure_code=failure_code,
            reaped=reaped,
            seconds=ended - (now if job.started_at is None else job.started_at),
        )
    )


def note_tokens(session: Session, job: Job, tokens: int) -> None:
    """Add what the attempt that has just succeeded at ``job`` has trained."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt, Attempt.outcome == SUCCEEDED)
        .values(tokens=tokens)
    )
