"""The worker's side of one job: describe it, have a child execute it, renew the lease meanwhile, store the result."""

import logging
import time
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from service.database.engine import Database
from service.database.models import Job
from service.settings import Settings
from workers.child_handle import Child, ChildDied
from workers.claims import Claim, LeaseLost, acknowledge_cancel, fail, finish, heartbeat, release
from workers.failures import WORKER_LOST, Failure
from workers.jobs import KINDS
from workers.pipeline import settle

log = logging.getLogger("mixwright.worker")


class Cancelled(Exception):
    """The job was cancelled while it ran."""


class Stopping(Exception):
    """The worker is shutting down."""


class Flag(Protocol):
    """An event of `threading`, or of `multiprocessing` where another process sets it."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...


@dataclass(frozen=True)
class Worker:
    """What a worker works with; ``stopping`` asks it to give its job back."""

    database: Database
    settings: Settings
    stopping: Flag


def run_claim(worker: Worker, claim: Claim, child: Child) -> None:
    """See one claimed job through to an end that is written in the store, or drop it when it was taken away."""
    started = time.monotonic()
    try:
        outcome = _execute_and_store(worker, claim, child)
    except LeaseLost as lost:
        child.kill()
        log.warning("%s %s: dropped: %s", claim.kind, claim.job_id, lost)
        return
    log.info(
        "%s %s (%s), attempt %d: %s after %.1f s",
        claim.kind,
        claim.job_id,
        claim.subject,
        claim.attempt,
        outcome,
        time.monotonic() - started,
    )


def _execute_and_store(worker: Worker, claim: Claim, child: Child) -> str:
    database = worker.database
    try:
        _finish(database, claim, _execute(worker, claim, child))
        return "succeeded"
    except Cancelled:
        child.kill()
        acknowledge_cancel(database, claim, settle)
        return "cancelled"
    except Stopping:
        child.kill()
        release(database, claim)
        return "given back"
    except ChildDied as death:
        failure = Failure(WORKER_LOST, str(death), retryable=True)
    except _JobFailed as failed:
        failure = failed.failure
    return f"{fail(database, claim, failure, settle)} ({failure.code}: {failure.detail})"


class _JobFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def _execute(worker: Worker, claim: Claim, child: Child) -> dict[str, Any]:
    child.order(claim.kind, _describe(worker, claim))
    progress: dict[str, Any] | None = None
    # The first heartbeat comes at once: it says "running", and finds out about a cancelled job before any work.
    next_heartbeat = 0.0
    while True:
        if worker.stopping.is_set():
            raise Stopping
        if time.monotonic() >= next_heartbeat:
            if heartbeat(worker.database, claim, progress):
                raise Cancelled
            next_heartbeat = time.monotonic() + worker.settings.heartbeat_seconds
        message = child.message(timeout=min(worker.settings.heartbeat_seconds, 0.2))
        if message is None:
            continue
        if "result" in message:
            return message["result"]
        if "failure" in message:
            raise _JobFailed(Failure(**message["failure"]))
        progress = message["progress"]


def _describe(worker: Worker, claim: Claim) -> dict[str, Any]:
    """The job's specification; what its kind complains about is the job's failure, not the worker's."""
    with worker.database.read() as session:
        job = session.get_one(Job, claim.job_id)
        try:
            return KINDS[claim.kind].describe(session, job, worker.settings)
        except Exception as error:  # the edge of the worker: recorded with the job
            failure = Failure.of(error)
            if failure.code == "internal_error":
                log.exception("%s %s: describe", claim.kind, claim.job_id)
            raise _JobFailed(failure) from error


def _finish(database: Database, claim: Claim, result: dict[str, Any]) -> None:
    """Store the result. One that cannot be stored fails its job: another attempt would bring the same."""
    try:
        finish(database, claim, lambda session, job: _store(session, job, result))
    except (LeaseLost, OperationalError, InterfaceError):
        raise  # taken away, or the store does not answer: neither is the result's fault
    except Exception as error:  # the edge of the worker: recorded with the job
        log.exception("%s %s: store", claim.kind, claim.job_id)
        raise _JobFailed(Failure.of(error)) from error


def _store(session: Session, job: Job, result: dict[str, Any]) -> None:
    KINDS[job.kind].store(session, job, result)
    session.flush()
    settle(session, job)
