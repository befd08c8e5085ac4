"""The whole service on one machine: one process that keeps the web process and the supervisor running."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from service.operator_token import load_token
from service.processes.address import ServeLock, ServiceRecord, address, answers, listen
from service.processes.child_process import KeptProcess, tail
from store.lifeline import stop_on_signals
from store.schema import upgrade
from store.settings import Settings, require_devices

TEND_SECONDS = 0.1
STOP_SECONDS = 3.0
"""How long its processes may take to stop, beyond what training has for its checkpoint."""
ORPHANS_END_SECONDS = 10.0
"""How long the web process of a killed service may take to leave its port."""
START_SECONDS = 90.0
LOOK_SECONDS, SICK_SECONDS = 5.0, 30.0
"""How often the web process is asked whether it is well, and for how long it may not be."""
LOCAL_STOP_SECONDS = STOP_SECONDS + 4.0
CHILD_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # an idle OpenMP thread that spins takes the core from a working one
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}

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
                raise StartFailed(f"the service did not start; {log_path}:\n{tail(log_path, log_start)}")
            if time.monotonic() > deadline:
                stop_all([process] if process else [], settings.stop_seconds + LOCAL_STOP_SECONDS)
                raise StartFailed(
                    f"the service of {data} did not answer within {START_SECONDS:.0f} s; "
                    f"{log_path}:\n{tail(log_path, log_start)}"
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
