"""The whole service on one machine: one process that keeps the web process and the supervisor running."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from service.processes.address import ServeLock, ServiceRecord, address, answers, listen, load_token
from store.lifeline import ONE_THREAD, how_it_ended, stop_on_signals, tail
from store.schema import upgrade
from store.settings import Settings, require_devices

# A child process that is kept running: its log, its lifeline, and a longer pause after each quick death.

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0
HEALTHY_AFTER_SECONDS = 30.0
"""A child that lived this long is restarted at once when it dies."""
MOST_FAILED_STARTS = 5
LOG_LIMIT_BYTES = 10 * 2**20
SHOWN_BYTES = 1500
"""Of the end of a log, in a message."""


def open_log(path: Path) -> BinaryIO:
    """The log to append to, readable by its owner only; a long one is moved aside as ``<name>.1`` first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_LIMIT_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


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
        return f"; {self.log_path}:\n{tail(self.log_path, SHOWN_BYTES)}" if self.log_path else ""

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
        how = how_it_ended(status)
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


TEND_SECONDS = 0.1
STOP_SECONDS = 3.0
"""How long its processes may take to stop, beyond what training has for its checkpoint."""
ORPHANS_END_SECONDS = 10.0
"""How long the web process of a killed service may take to leave its port."""
START_SECONDS = 90.0
LOOK_SECONDS, SICK_SECONDS = 5.0, 30.0
"""How often the web process is asked whether it is well, and for how long it may not be."""
LOCAL_STOP_SECONDS = STOP_SECONDS + 4.0
CHILD_ENVIRONMENT = {**ONE_THREAD, "PYTHONUNBUFFERED": "1"}

_log = logging.getLogger("mixwright.serve")


class StartFailed(RuntimeError):
    """The service did not come up; the message ends with its log."""


def serve(settings: Settings, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Run the service until SIGTERM or SIGINT; ``on_ready`` gets its address when it first answers.

    Raises AlreadyServed, NoSuchDevice, PortInUse, UnprotectedBind or StartFailed before anything is left running.
    """
    data = settings.data_directory
    require_devices(settings.accelerators)
    with stop_on_signals() as stop, ServeLock(data):
        load_token(settings)
        upgrade(settings.resolved_database_url)
        # A record found under a fresh lock is from a service that was killed: its web process is just ending.
        killed = ServiceRecord.read(data) is not None
        ServiceRecord.remove(data)
        with listen(settings.host, settings.port, ORPHANS_END_SECONDS if killed else 0.0) as listener:
            children = _children(settings, listener)
            try:
                for child in children:
                    child.start()
                _keep_running(children, ServiceRecord(address(listener), os.getpid()), data, stop, on_ready)
            finally:
                ServiceRecord.remove(data)
                stop_all(children, settings.stop_seconds + STOP_SECONDS)


def _children(settings: Settings, listener: socket.socket) -> list[KeptProcess]:
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    environment = {**os.environ, **settings.environment(), **CHILD_ENVIRONMENT}
    logs = settings.data_directory / "logs"
    descriptor = listener.fileno()
    web = [sys.executable, "-m", "service.processes.web", "--fd", str(descriptor), "--exit-with-parent"]
    supervisor = [sys.executable, "-m", "workers.supervisor"]
    return [
        KeptProcess("web", web, environment, logs / "web.log", (descriptor,)),
        KeptProcess("supervisor", supervisor, environment, logs / "supervisor.log"),
    ]


def _keep_running(
    children: list[KeptProcess],
    record: ServiceRecord,
    data_directory: Path,
    stop: threading.Event,
    on_ready: Callable[[str], None],
) -> None:
    web = children[0]
    ready, health = False, _Health(web, record.url)
    while not stop.wait(TEND_SECONDS):
        ended = [child for child in children if child.tend()]
        for child in ended:
            # A web process that never answered will not do better the second time.
            if child.never_came_up or (child is web and not ready):
                raise StartFailed(f"{child.name} does not start{child.end_of_log()}")
        if ready:
            health.look()
        elif answers(record.url):
            ready = True
            record.write(data_directory)
            on_ready(record.url)


class _Health:
    """Replaces a web process that runs and does not answer: it was stopped, hangs, or serves nobody."""

    def __init__(self, web: KeptProcess, url: str) -> None:
        self._web, self._url = web, url
        self._next = self._last_good = time.monotonic()
        self._pid: int | None = None

    def look(self) -> None:
        """Ask it now and then."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        if self._web.pid != self._pid or answers(self._url, LOOK_SECONDS):
            self._pid, self._last_good = self._web.pid, now
        elif now - self._last_good > SICK_SECONDS:
            _log.error("the web process has not been well for %.0f s; replacing it", now - self._last_good)
            self._web.kill()


def stop_all(children: Sequence[KeptProcess], seconds: float = STOP_SECONDS) -> None:
    """Ask every child to stop, then wait so long for all of them together."""
    for child in children:
        child.ask_to_stop()
    deadline = time.monotonic() + seconds
    for child in children:
        child.wait_until_stopped(deadline)


@dataclass(slots=True)
class LocalService:
    """The service of one data directory on this machine, started here or found running."""

    url: str
    token: str = field(repr=False)
    pid: int
    started_here: bool
    _process: KeptProcess | None = field(default=None, repr=False)

    @classmethod
    def start(cls, data_directory: Path, port: int) -> Self:
        """The service that has ``data_directory``, or a new one on ``port`` (0: any free one).

        A new one ends when this process does, however that ends. Raises StartFailed with the end of its log.
        """
        settings = Settings(data_directory=data_directory, port=port)
        data = settings.data_directory
        deadline = time.monotonic() + START_SECONDS
        log_path = data / "logs" / "serve.log"
        process: KeptProcess | None = None
        log_start = log_path.stat().st_size if log_path.exists() else 0
        while True:
            held = ServeLock.is_held(data)
            record = ServiceRecord.read(data) if held else None
            if record is not None and answers(record.url):
                mine = process is not None and record.pid == process.pid
                return cls(record.url, load_token(settings), record.pid, mine, process if mine else None)
            if process is None and not held:
                command = [sys.executable, "-m", "service.cli.main", "serve", "--exit-with-parent"]
                environment = {**os.environ, **settings.environment()}
                process = KeptProcess("the service", command, environment, log_path)
                process.start()
            if process is not None and not process.is_running and not held:
                raise StartFailed(
                    f"the service did not start; {log_path}:\n{tail(log_path, SHOWN_BYTES, log_start)}"
                )
            if time.monotonic() > deadline:
                stop_all([process] if process else [], settings.stop_seconds + LOCAL_STOP_SECONDS)
                raise StartFailed(
                    f"the service of {data} did not answer within {START_SECONDS:.0f} s; "
                    f"{log_path}:\n{tail(log_path, SHOWN_BYTES, log_start)}"
                )
            time.sleep(TEND_SECONDS)

    def stop(self) -> None:
        """Stop the service and everything it started, if it was started here; twice does no harm."""
        if self._process is not None:
            stop_all([self._process], Settings().stop_seconds + LOCAL_STOP_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
