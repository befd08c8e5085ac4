"""The web processes under measurement, on a socket that outlives them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil

from service.processes.address import answers, listen
from store.settings import Settings


@contextmanager
def served(
    settings: Settings, workers: int, seconds: float = 60.0, log: Path | None = None
) -> Iterator["Web"]:
    """Web processes on one socket, as a balancer in front of them would share connections out; one answers."""
    with listen("127.0.0.1", 0) as listener:
        web = Web(settings, workers, listener.fileno(), listener.getsockname()[1], log)
        web.start()
        try:
            give_up = time.monotonic() + seconds
            while not answers(web.url):
                if time.monotonic() > give_up:
                    raise RuntimeError(f"the web process did not answer within {seconds} s")
                time.sleep(0.05)
            yield web
        finally:
            web.kill()


class Web:
    """The processes, which can be killed and started again."""

    def __init__(
        self, settings: Settings, workers: int, descriptor: int, port: int, log: Path | None = None
    ) -> None:
        self._log = log
        self.url = f"http://127.0.0.1:{port}"
        self.workers = workers
        self._environment = {**os.environ, **settings.environment(), "MIXWRIGHT_PORT": str(port)}
        self._environment["MIXWRIGHT_LOG_LEVEL"] = "warning"
        self._descriptor = descriptor
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start them."""
        command = [sys.executable, "-m", "service.processes.web", "--fd", str(self._descriptor)]
        with self._log.open("ab") if self._log else nullcontext() as log:
            self._processes = [
                subprocess.Popen(command, env=self._environment, pass_fds=(self._descriptor,), stderr=log)
                for _ in range(self.workers)
            ]

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def cpu_seconds(self) -> float:
        """What they have used of a core: on a machine that others use too, what says more than a clock."""
        used = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return sum(one.user + one.system for one in used)

    def kill(self) -> None:
        """SIGKILL."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()
