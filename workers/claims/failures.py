"""Why a job did not succeed, in the words that are stored with it; whether it is tried again, and when.

Two things are counted. What may be the job's own fault (memory, a failed write) has `ATTEMPTS` attempts. A worker
that was lost says little about its job: on a cluster that kills and takes away machines, three would soon be reached
by jobs that did nothing wrong. So each lost worker gives its job one more attempt, up to `LOST_ALLOWED` of them,
because a job may also be what kills its worker (the kernel's answer to too little memory is SIGKILL). And it costs
nothing at all where the attempt had trained for `FAR_SECONDS`: there is a checkpoint of it, so the next one starts
further on, and a run of days may lose any number of machines.
"""

from dataclasses import dataclass

from mixing.errors import MixingError
from proxy_models.errors import ProxyError
from store.jobs import TRAINING
from store.tables import ATTEMPTS, Job

WORKER_LOST = "worker_lost"
OUT_OF_MEMORY = "out_of_memory"
DEVICE_FAILED = "device_failed"
STOPPED = "stopped"
"""Not a failure: what was under way has a checkpoint, because its worker was asked to stop."""

# What a broken machine does to every job alike; a job may be at fault as well, several different ones hardly.
PERHAPS_THE_DEVICE = frozenset({WORKER_LOST, OUT_OF_MEMORY, DEVICE_FAILED, "io_error", "storage_failed"})

# Memory is often short because of a neighbour, so a second attempt is worth it; a third is not.
ATTEMPTS_ALLOWED = {OUT_OF_MEMORY: 2}

# An OSError of these kinds will be there at the next attempt too.
_MISSING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class JobError(Exception):
    """Raised by a job that knows why it cannot go on; ``code`` is stable, ``retryable`` says whether to try again."""

    def __init__(self, code: str, detail: str, retryable: bool = False) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retryable = code, detail, retryable


@dataclass(frozen=True)
class Failure:
    """One attempt's end: a stable ``code``, a sentence, and whether another attempt can help."""

    code: str
    detail: str
    retryable: bool

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """The failure that ``error`` stands for; what nobody foresaw is an ``internal_error``, never retried."""
        if isinstance(error, JobError | ProxyError):
            return cls(error.code, str(error), error.retryable)
        if isinstance(error, MixingError):
            return cls(error.code, str(error), retryable=False)
        # torch's errors by name: this module must not load torch into the parent.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return cls(OUT_OF_MEMORY, str(error) or "out of memory", retryable=True)
        if type(error).__name__ == "AcceleratorError" or _is_of_cuda(error):
            return cls(DEVICE_FAILED, str(error).splitlines()[0], retryable=True)
        if isinstance(error, _MISSING):
            return cls("data_missing", str(error), retryable=False)
        if isinstance(error, OSError):
            return cls("io_error", str(error), retryable=True)
        return cls("internal_error", f"{type(error).__name__}: {error}", retryable=False)


def _is_of_cuda(error: BaseException) -> bool:
    """Whether torch complains about the device and not about what was done on it.

    By its words, which are of several classes: "CUDA error: ...", "Torch not compiled with CUDA enabled",
    "No CUDA GPUs are available", "Found no NVIDIA driver on your system".
    """
    return isinstance(error, RuntimeError | AssertionError) and any(
        word in str(error) for word in ("CUDA", "NVIDIA")
    )


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
