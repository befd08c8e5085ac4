"""The peak of what the demo and everything it started hold in memory."""

import threading
from types import TracebackType
from typing import Self

import psutil

SAMPLE_SECONDS = 2.0


class PeakMemory:
    """Samples this process and its descendants while the block runs; ``peak_bytes`` is the largest sum seen.

    Shared pages are counted once (proportional set size) where the system tells, else once a process.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        own = psutil.Process()
        while True:
            total = sum(_held(process) for process in (own, *own.children(recursive=True)))
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(SAMPLE_SECONDS):
                return


def _held(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return getattr(full, "pss", full.rss)
    except psutil.Error:
        return 0  # it ended, or is not ours to look into
