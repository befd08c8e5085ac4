"""How a process runs and ends: on one thread, until it is told to end or the one that started it has, even killed.

A parent keeps the write end of the child's standard input open and never writes; the kernel closes it
whatever way the parent dies, and the child reads the end of file. Works on any POSIX system, unlike a
parent-death signal.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # an idle OpenMP thread that spins takes the core from a working one
    "TOKENIZERS_PARALLELISM": "false",
}
"""Of what computes: two OpenMP threads on two busy cores were seen to take 8.3 s for a step of 0.5 s."""


def exit_with_parent() -> None:
    """From now on, turn the end of standard input into the signal that asks this process to stop."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    wanted = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def how_it_ended(status: int) -> str:
    """Of an exit status: ``by SIGKILL``, ``with status 1``."""
    return f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"


def tail(path: Path, length: int, start: int = 0) -> str:
    """The end of a log behind byte ``start``, at most so many bytes of it; empty without one."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - length))
            return file.read(length).decode("utf-8", "replace").replace("\0", "")
    except OSError:
        return ""
