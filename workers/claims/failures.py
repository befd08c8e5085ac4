"""Why a job did not succeed, in the words that are stored with it.

Free of the database: the child that does the job says it.
"""

from dataclasses import dataclass

from mixing.errors import MixingError
from proxy_models.errors import ProxyError
from store.problems import Problem

WORKER_LOST = "worker_lost"
OUT_OF_MEMORY = "out_of_memory"
DEVICE_FAILED = "device_failed"
STOPPED = "stopped"
"""Not a failure: what was under way has a checkpoint, because its worker was asked to stop."""

# What a broken machine does to every job alike; a job may be at fault as well, several different ones hardly.
PERHAPS_THE_DEVICE = frozenset({WORKER_LOST, OUT_OF_MEMORY, DEVICE_FAILED, "io_error", "storage_failed"})

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
        if isinstance(error, Problem):
            return cls(error.code, str(error), retryable=False)
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
