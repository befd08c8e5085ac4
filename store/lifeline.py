"""How a process ends: when it is told to, and with the one that started it, even where that is killed.

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
