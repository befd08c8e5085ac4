"""The service as real processes that are started again when they die, as systemd or a container runtime does."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from service.processes.address import answers
from store.settings import Settings

TOKEN = "a-token-for-the-storm"
START_SECONDS = 180.0
STOP_SECONDS = 20.0
SINGLE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1"}


@dataclass
class Kept:
    """A command, started again whenever it ends; its output is appended to ``log``."""

    name: str
    arguments: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                stdin=subprocess.PIPE if "--exit-with-parent" in self.arguments else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def tend(self) -> None:
        """Start it again if it has ended."""
        if self.process is not None and self.process.poll() is not None:
            self.start()


@dataclass
class Cluster:
    """The processes of one service; a context that has none left when it ends, stopped ones included."""

    settings: Settings
    kept: list[Kept]
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where the web process answers."""
        return f"http://127.0.0.1:{self.settings.port}"

    def start(self) -> None:
        """Start everything and keep it running; returns when the web process answers."""
        for one in self.kept:
            one.start()
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._thread.start()
        wait_until(lambda: answers(self.url), START_SECONDS, "the web process")

    def _keep(self) -> None:
        while not self._closing.wait(0.1):
            for one in self.kept:
                one.tend()

    def find(self, *words: str) -> list[psutil.Process]:
        """This service's processes with all of these words in their command line."""
        return [process for process in self.processes() if all(word in _command(process) for word in words)]

    def workers(self) -> list[psutil.Process]:
        """What is kept running to do work: supervisors, or Celery's main processes."""
        pids = {one.process.pid for one in self.kept if one.process is not None}
        celery = [one for one in self.find("workers.celery_app") if one.pid in pids]
        return [*self.find("workers.supervisor"), *celery]

    def pools(self) -> list[psutil.Process]:
        """The processes of Celery's pools, in which jobs are claimed."""
        mains = {one.pid for one in self.workers()}
        return [one for one in self.find("workers.celery_app") if one.pid not in mains]

    def processes(self) -> list[psutil.Process]:
        """All of this service, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            try:
                directory = process.environ().get("MIXWRIGHT_DATA_DIRECTORY")
                if directory == str(self.settings.data_directory) and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self) -> None:
        """End everything."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        processes = self.processes()
        for process in processes:
            _signal(process, signal.SIGCONT)
        for one in self.kept:
            if one.process is not None and one.process.poll() is None:
                one.process.terminate()
        psutil.wait_procs(processes, timeout=STOP_SECONDS)
        for process in self.processes():
            _signal(process, signal.SIGKILL)
        for one in self.kept:
            if one.process is not None:
                one.process.wait()
                if one.process.stdin is not None:
                    one.process.stdin.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def embedded(settings: Settings) -> Cluster:
    """``mixwright serve``: it keeps a web process and a supervisor of ``settings.slots`` slots running itself."""
    serve = ("service.cli.main", "serve", "--exit-with-parent")
    return Cluster(settings, [_kept(settings, "serve", *serve)])


def team(settings: Settings, workers: int) -> Cluster:
    """A web process, a dispatcher and Celery workers of one process each."""
    celery = ("celery", "-A", "workers.celery_app", "worker", "--concurrency", "1", "--loglevel", "WARNING")
    return Cluster(
        settings,
        [
            _kept(settings, "web", "service.processes.web"),
            _kept(settings, "dispatcher", "workers.dispatcher"),
            *(_kept(settings, f"w{index}", *celery, "-n", f"w{index}@%h") for index in range(workers)),
        ],
    )


def _kept(settings: Settings, name: str, *arguments: str) -> Kept:
    logs = settings.data_directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **settings.environment(), **SINGLE}
    return Kept(name, arguments, environment, logs / f"{name}.out")


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look every twentieth of a second; raises TimeoutError naming ``what`` when it did not come true in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)
