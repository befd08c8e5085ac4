"""A child process that is kept running: its log, its lifeline, and a longer pause after each quick death."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 30.0
"""A child that lived this long is restarted at once when it dies."""
MOST_FAILED_STARTS = 5
LOG_LIMIT_BYTES = 10 * 2**20

_log = logging.getLogger("mixwright.serve")


def open_log(path: Path) -> BinaryIO:
    """The log to append to, readable by its owner only; a long one is moved aside as ``<name>.1`` first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def tail(path: Path, start: int = 0, lines: int = 15) -> str:
    """The last ``lines`` lines of a log behind byte ``start``."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - 2**16))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.rstrip().splitlines()[-lines:])


class KeptProcess:
    """One command, started again whenever it ends.

    Its standard input is a pipe nobody writes to (store.lifeline), so it ends with this process; it has a
    session of its own, so a Ctrl-C in the terminal reaches only this process, which stops it in order. Without a
    log of its own it writes where this process does.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path | None,
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._command = list(command)
        self._environment = dict(environment)
        self._descriptors = tuple(descriptors)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._failed_starts = 0
        self._came_up = False

    @property
    def never_came_up(self) -> bool:
        """Whether it ended by itself time and again and never lived: a setting is wrong, or the installation."""
        return not self._came_up and self._failed_starts >= MOST_FAILED_STARTS

    @property
    def pid(self) -> int | None:
        """The process running now."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def end_of_log(self) -> str:
        """``; <path>:`` and the last lines of the child's own log, if it has one: the end of a message."""
        return f"; {self.log_path}:\n{tail(self.log_path)}" if self.log_path else ""

    def start(self) -> None:
        """Start the command."""
        with open_log(self.log_path) if self.log_path else nullcontext() as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                pass_fds=self._descriptors,
                start_new_session=True,
            )
        self._started_at = time.monotonic()
        self._start_at = None
        _log.info("%s runs as process %d", self.name, self._process.pid)

    def tend(self) -> bool:
        """Notice an end and, when its pause is over, start again; answers whether the child ended just now."""
        if self._process is None:
            if self._start_at is not None and time.monotonic() >= self._start_at:
                self.start()
            return False
        status = self._process.poll()
        if status is None:
            return False
        now = time.monotonic()
        if now - self._started_at >= HEALTHY_AFTER_SECONDS:
            self._pause = FIRST_PAUSE_SECONDS
            self._came_up = True
        self._failed_starts += status > 0  # one that was killed did not fail by itself
        self._start_at = now + self._pause
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        _log.warning("%s ended %s; starting it again in %.2g s", self.name, how, self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._forget()
        return True

    def kill(self) -> None:
        """Send SIGKILL; `tend` starts it again."""
        if self._process is not None and self.is_running:
            self._process.kill()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._start_at = None
        if self._process is not None and self.is_running:
            self._process.terminate()

    def wait_until_stopped(self, deadline: float) -> None:
        """Wait for the end until ``deadline`` (``time.monotonic()``), then use SIGKILL."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _log.warning("%s did not stop in time; killing it", self.name)
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
