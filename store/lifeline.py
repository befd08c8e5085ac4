"""A process started by another one ends with it, even when the other one is killed.

The parent keeps the write end of the child's standard input open and never writes; the kernel closes it
whatever way the parent dies, and the child reads the end of file. Works on any POSIX system, unlike a
parent-death signal.
"""

import os
import signal
import sys
import threading


def exit_with_parent() -> None:
    """From now on, turn the end of standard input into the signal that asks this process to stop."""

    def wait_for_end() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait_for_end, name="lifeline", daemon=True).start()
