"""Whether a job whose attempt failed is tried again, and when.

Two things are counted. What may be the job's own fault (memory, a failed write) has `ATTEMPTS` attempts. A worker
that was lost says little about its job: on a cluster that kills and takes away machines, three would soon be reached
by jobs that did nothing wrong. So each lost worker gives its job one more attempt, up to `LOST_ALLOWED` of them,
because a job may also be what kills its worker (the kernel's answer to too little memory is SIGKILL). And it costs
nothing at all where the attempt had trained for `FAR_SECONDS`: there is a checkpoint of it, so the next one starts
further on, and a run of days may lose any number of machines.
"""

from dataclasses import dataclass

from store.jobs import TRAINING
from store.tables import ATTEMPTS, Job
from workers.claims.failures import ATTEMPTS_ALLOWED, WORKER_LOST, Failure

LOST_ALLOWED = 10
"""Workers lost under one job; with the tenth it fails."""
FAR_SECONDS = 600.0
FIRST_WAIT_SECONDS = 1.0
"""Before the second attempt; doubled before each further one."""
LOST_WAIT_SECONDS = 8.0
"""The longest wait after a lost worker. There is none after the first; then it grows as above, so that where workers
go on dying not the first jobs of the queue meet all of it."""
STORAGE_WAIT_SECONDS = 15.0
"""The same where writing failed: a full disk takes somebody to make room."""
STORAGE = frozenset({"io_error", "storage_failed"})


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
    if failure.code == WORKER_LOST:
        if _got_far(job):
            return Retry(0.0, job.attempt - 1, job.max_attempts)
        if lost + 1 < LOST_ALLOWED:
            wait = min(FIRST_WAIT_SECONDS * 2 ** (lost - 1), LOST_WAIT_SECONDS) if lost else 0.0
            return Retry(wait, job.attempt, job.max_attempts + 1)
        return None
    own = job.attempt - lost
    if own >= ATTEMPTS_ALLOWED.get(failure.code, ATTEMPTS):
        return None
    first = STORAGE_WAIT_SECONDS if failure.code in STORAGE else FIRST_WAIT_SECONDS
    return Retry(first * 2 ** (own - 1), job.attempt, job.max_attempts)


def _got_far(job: Job) -> bool:
    held = (job.lease_expires_at or 0.0) - (job.started_at or 0.0)
    return job.kind in TRAINING and held > FAR_SECONDS
