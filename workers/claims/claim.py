"""Taking a job, keeping it, giving it back, and taking it back from a worker that vanished.

A claim is a lease: ``claim`` writes a fresh random token into the row, and every later write about the job names
the row and the token. Whoever lost the row in the meantime finds no such row (`LeaseLost`) and changes nothing. The
clock is the database's, so worker machines may disagree about the time. A lease that ran out is still owned until
the reaper takes the token away: a late finish is work done, and work done is kept.

Nobody who holds a job's row waits for the row of its owner (see `workers.pipeline`), so the two cannot deadlock.
"""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from store.engine import Database
from store.jobs import (
    CANCELLED,
    CLAIMED,
    FAILED,
    HELD,
    QUEUED,
    RELEASED,
    RETRIED,
    RUNNING,
    SCHEDULED_RUN,
    SUCCEEDED,
    TRAINING,
    note_attempt,
)
from store.tables import ATTEMPTS, Document, Job, database_now
from workers.claims.failures import OUT_OF_MEMORY, WORKER_LOST, Failure

InTransaction = Callable[[Session, Job], None]
"""What is written in the same transaction as the end of a job."""


class LeaseLost(RuntimeError):
    """The job is no longer this worker's: it was reaped, and perhaps somebody else has it. Drop the work."""


@dataclass(frozen=True)
class Claim:
    """A job in this worker's hands: the row's identity and the token that proves the lease."""

    job_id: str
    kind: str
    subject: str
    owner: str
    token: str
    attempt: int
    lease_seconds: float
    worker: str = ""


def claimable(kinds: Collection[str] | None = None) -> Select[Any]:
    """Jobs that may be claimed now, in the order in which they should be; of any kind that is a worker's."""
    query = select(Job).where(Job.state == QUEUED, Job.available_at <= database_now())
    wanted = Job.kind != SCHEDULED_RUN if kinds is None else Job.kind.in_(tuple(kinds))
    query = query.where(wanted)
    return query.order_by(Job.priority, Job.position, Job.created_at, Job.id)


def users_in_turn(session: Session) -> list[str]:
    """Who has queued jobs: first who holds the fewest slots, then who was given none for longest.

    Runs trained together hold one slot. So a user's thousand runs do not keep another's ten from being trained, and a
    machine of one slot takes from each in turn.
    """
    # From one user to the next in an index, however many jobs each has: whether one of these may be claimed now, the
    # claim itself sees.
    queued = select(func.min(Job.user_name).label("user_name")).where(Job.state == QUEUED)
    first = queued.cte("waiting", recursive=True)
    following = queued.where(Job.user_name > first.c.user_name).scalar_subquery()
    waiting = first.union_all(select(following).where(first.c.user_name.is_not(None)))
    of_user = Job.user_name == waiting.c.user_name
    on_slots = (of_user, Job.state.in_(HELD), Job.kind != SCHEDULED_RUN)
    slots = select(func.sum(1.0 / Job.shared_by)).where(*on_slots).scalar_subquery()
    last = select(func.max(Job.started_at)).where(of_user).scalar_subquery()
    turns = select(waiting.c.user_name, func.coalesce(slots, 0.0), func.coalesce(last, 0.0)).where(
        waiting.c.user_name.is_not(None)
    )
    return [
        row[0] for row in sorted(session.execute(turns).all(), key=lambda row: (round(row[1], 6), row[2]))
    ]


def is_any(database: Database, query: Select[Any]) -> bool:
    """Whether a query finds a job: asked before SQLite's only writer is kept, for mostly there is nothing to do."""
    with database.read() as session:
        return session.scalars(query.with_only_columns(Job.id).order_by(None).limit(1)).first() is not None


def claim(
    database: Database,
    worker: str,
    lease_seconds: float,
    kinds: Collection[str] | None = None,
    job_id: str | None = None,
) -> Claim | None:
    """Take the first job that waits (or ``job_id``, if it still does) for ``lease_seconds``; None: there is none.

    The first of the user whose turn it is (`users_in_turn`).
    """
    query = claimable(kinds) if job_id is None else claimable(kinds).where(Job.id == job_id)
    if not is_any(database, query):
        return None
    first = query.limit(1).with_for_update(skip_locked=True)
    with database.write() as session:
        for user in users_in_turn(session):
            job: Job | None = session.scalars(first.where(Job.user_name == user)).first()
            if job is not None:
                return take(job, worker, lease_seconds)
    return None


def take(job: Job, worker: str, lease_seconds: float) -> Claim:
    """Lease a queued job whose row the caller has locked."""
    job.state = CLAIMED
    job.attempt += 1
    job.lease_token = token = secrets.token_hex(16)
    job.lease_expires_at = _now_plus(lease_seconds)
    job.worker = worker
    job.started_at = _now_plus(0)
    job.shared_by = 1
    job.progress = None
    return Claim(job.id, job.kind, job.subject, job.owner, token, job.attempt, lease_seconds, worker)


@dataclass(frozen=True)
class Standing:
    """What the store says of held jobs: those to ``stop``, because they were cancelled, and those ``lost``."""

    stop: frozenset[Claim]
    lost: frozenset[Claim]


def heartbeat(
    database: Database,
    progress: Mapping[Claim, Document | None],
    beside: Callable[[Session, Claim], None] = lambda session, claim: None,
) -> Standing:
    """Renew the leases, in one transaction, and show how far each job is (None: leave what is shown).

    ``beside`` is written with each lease that is renewed.

    A row that somebody else is writing now is left for the next time: whoever waited here for one row while holding
    another could stand in the way of somebody who cancels both.
    """
    with database.write() as session:
        ids = [claim.job_id for claim in progress]
        rows = session.execute(
            select(Job.id, Job.lease_token, Job.cancel_requested).where(Job.id.in_(ids))
        ).all()
        stored = {row.id: row for row in rows}
        held = [c for c in progress if c.job_id in stored and stored[c.job_id].lease_token == c.token]
        free = set(
            session.scalars(
                select(Job.id).where(Job.id.in_([c.job_id for c in held])).with_for_update(skip_locked=True)
            )
        )
        for claim in held:
            if claim.job_id in free:
                _renew(session, claim, progress[claim])
                beside(session, claim)
    stop = frozenset(claim for claim in held if stored[claim.job_id].cancel_requested)
    return Standing(stop, frozenset(progress.keys() - set(held)))


def _renew(session: Session, claim: Claim, progress: Document | None) -> None:
    values: dict[str, Any] = {"state": RUNNING, "lease_expires_at": _now_plus(claim.lease_seconds)}
    if progress is not None:
        values["progress"] = progress
    session.execute(update(Job).where(Job.id == claim.job_id, Job.lease_token == claim.token).values(values))


def finish(database: Database, claim: Claim, store: InTransaction) -> None:
    """Succeed: one transaction stores the result and ends the job, or neither happens.

    Raises:
        LeaseLost: somebody else has the job; nothing was stored.
    """
    _close(database, claim, lambda job: end(job, SUCCEEDED), store)


def fail(database: Database, claim: Claim, failure: Failure, settled: InTransaction | None = None) -> str:
    """End this attempt with ``failure``: queued again after a wait, or failed; answers the new state.

    Raises:
        LeaseLost: somebody else has the job.
    """
    return _close(database, claim, lambda job: retry_or_end(job, failure), settled)


def release(database: Database, claim: Claim) -> None:
    """Give the job back untouched, its attempt too: the worker is shutting down, the job did nothing wrong.

    Raises:
        LeaseLost: somebody else has the job.
    """

    def give_back(job: Job) -> None:
        if job.cancel_requested:
            end(job, CANCELLED)
        else:
            requeue(job, 0, outcome=RELEASED)
            job.attempt -= 1

    _close(database, claim, give_back)


def acknowledge_cancel(database: Database, claim: Claim, settled: InTransaction | None = None) -> None:
    """The work was stopped as asked.

    Raises:
        LeaseLost: somebody else has the job.
    """
    _close(database, claim, lambda job: end(job, CANCELLED), settled)


def _close(
    database: Database, claim: Claim, how: Callable[[Job], None], settled: InTransaction | None = None
) -> str:
    """End what was claimed, with what is written beside it, in one transaction; answers the job's new state."""
    owned = select(Job).where(Job.id == claim.job_id, Job.lease_token == claim.token).with_for_update()
    with database.write() as session:
        job = session.scalars(owned).first()
        if job is None:
            raise LeaseLost(f"job {claim.job_id}: the lease of attempt {claim.attempt} was taken away")
        how(job)
        session.flush()
        if settled is not None:
            settled(session, job)
        return job.state


def end(job: Job, state: str, failure: Failure | None = None, reaped: bool = False) -> None:
    """Close the lease of a held job for good; ``reaped`` says that it was taken from its worker."""
    note_attempt(job, state, failure.code if failure else None, reaped)
    _close_lease(job)
    job.state = state
    job.finished_at = _now_plus(0)
    job.failure_code = failure.code if failure else None
    job.failure_detail = failure.detail if failure else None


def retry_or_end(job: Job, failure: Failure, reaped: bool = False) -> None:
    """Close the lease of a held job that met with ``failure``: it is tried again, has failed or is cancelled."""
    if job.cancel_requested:
        end(job, CANCELLED, reaped=reaped)
    elif (retry := next_attempt(job, failure)) is None:
        end(job, FAILED, failure, reaped)
    else:
        requeue(job, retry.wait_seconds, failure, reaped=reaped)
        job.attempt, job.max_attempts = retry.attempt, retry.max_attempts


def requeue(
    job: Job,
    wait_seconds: float,
    failure: Failure | None = None,
    outcome: str = RETRIED,
    reaped: bool = False,
) -> None:
    """Close the lease of a held job and let it be claimed again, with the last failure still to be read."""
    note_attempt(job, outcome, failure.code if failure else None, reaped)
    _close_lease(job)
    job.state = QUEUED
    job.available_at = _now_plus(wait_seconds)
    if failure is not None:
        job.failure_code, job.failure_detail = failure.code, failure.detail


def _close_lease(job: Job) -> None:
    # A worker that vanished counts as busy until its lease ran out: nobody knows better.
    now = database_now()
    last_seen = case((Job.lease_expires_at < now, Job.lease_expires_at), else_=now)
    job.busy_seconds = Job.busy_seconds + (last_seen - Job.started_at) / Job.shared_by
    job.lease_token = None
    job.lease_expires_at = None


def _now_plus(seconds: float) -> ColumnElement[float]:
    return database_now() + seconds


BATCH = 100
"""Leases taken back in one transaction, so that a crash of many workers does not hold up the writers."""


def reap(database: Database, settled: InTransaction | None = None) -> list[Job]:
    """Take back up to `BATCH` expired leases; ``settled`` is called for each in the same transaction.

    A job goes back to the queue, fails as ``worker_lost`` with the last worker it may lose
    (`next_attempt`), or is cancelled when that was asked for.
    """
    expired = select(Job).where(Job.state.in_(HELD), Job.lease_expires_at < database_now())
    if not is_any(database, expired):
        return []
    first = expired.order_by(Job.lease_expires_at).limit(BATCH).with_for_update(skip_locked=True)
    with database.write() as session:
        return [_take_back(session, job, settled) for job in session.scalars(first).all()]


def _take_back(session: Session, job: Job, settled: InTransaction | None) -> Job:
    lost = Failure(WORKER_LOST, f"worker {job.worker} stopped renewing its lease", retryable=True)
    retry_or_end(job, lost, reaped=True)
    session.flush()
    if settled is not None and job.state != QUEUED:
        settled(session, job)
    return job


# Whether a job is tried again, and when. Two things are counted.
#
# What may be the job's own fault (memory, a failed write) has `ATTEMPTS` attempts. A worker that was lost says little
# about its job: on a cluster that kills and takes away machines, three would soon be reached by jobs that did nothing
# wrong. So each lost worker gives its job one more attempt, up to `LOST_ALLOWED` of them, because a job may also be
# what kills its worker (the kernel's answer to too little memory is SIGKILL). And it costs nothing at all where the
# attempt had trained for `FAR_SECONDS`: there is a checkpoint of it, so the next one starts further on, and a run of
# days may lose any number of machines.

# Memory is often short because of a neighbour, so a second attempt is worth it; a third is not.
# Whoever is told of a launch's end may be down for half an hour.
ATTEMPTS_ALLOWED = {OUT_OF_MEMORY: 2, "callback_failed": 8}
LOST_ALLOWED = 10
"""Workers lost under one job; with the tenth it fails."""
PROCESS_LOST = frozenset({WORKER_LOST, "torchrun_failed"})
"""One of the processes that a run needs died."""
FAR_SECONDS = 600.0
FIRST_WAIT_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""
LOST_WAIT_SECONDS = 8.0
"""The longest wait after a lost worker. There is none after the first; then it grows as above, so that where workers
go on dying not the first jobs of the queue meet all of it."""
OTHERS_WAIT_SECONDS = 15.0
"""The same where somebody else has to do something first: make room on a disk, start what is to be told."""
OTHERS = frozenset({"io_error", "storage_failed", "callback_failed"})


@dataclass(frozen=True)
class Retry:
    """The next attempt: in how many seconds, and what the one that failed has cost the job."""

    wait_seconds: float
    attempt: int
    max_attempts: int


def next_attempt(job: Job, failure: Failure) -> Retry | None:
    """What follows the attempt that holds ``job`` and ended with ``failure``; None: there is no other attempt.

    ``max_attempts`` is raised by each lost worker, so what it is above `ATTEMPTS` is how many there were.
    """
    if not failure.retryable:
        return None
    lost = job.max_attempts - ATTEMPTS
    if failure.code in PROCESS_LOST and _got_far(job):
        return Retry(0.0, job.attempt - 1, job.max_attempts)
    if failure.code == WORKER_LOST:
        if lost + 1 < LOST_ALLOWED:
            wait = min(FIRST_WAIT_SECONDS * 2 ** (lost - 1), LOST_WAIT_SECONDS) if lost else 0.0
            return Retry(wait, job.attempt, job.max_attempts + 1)
        return None
    own = job.attempt - lost
    if own >= ATTEMPTS_ALLOWED.get(failure.code, ATTEMPTS):
        return None
    first = OTHERS_WAIT_SECONDS if failure.code in OTHERS else FIRST_WAIT_SECONDS
    return Retry(first * 2 ** (own - 1), job.attempt, job.max_attempts)


def _got_far(job: Job) -> bool:
    held = (job.lease_expires_at or 0.0) - (job.started_at or 0.0)
    return job.kind in (*TRAINING, SCHEDULED_RUN) and held > FAR_SECONDS
