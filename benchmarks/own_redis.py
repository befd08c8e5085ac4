"""A Redis of one's own on a free port, which may be killed and comes back empty."""

import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

BINARIES = ("redis-server", "valkey-server")
START_TRIES = 600
"""Of a tenth of a second."""


class NoRedis(RuntimeError):
    """There is no server binary on PATH."""


class OwnRedis:
    """The server as a context; nothing is kept on disk."""

    def __init__(self, directory: Path) -> None:
        found = next((path for name in BINARIES if (path := shutil.which(name))), None)
        if found is None:
            raise NoRedis(f"none of {', '.join(BINARIES)} is on PATH")
        self._binary, self._directory = found, directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        keeping = ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            [self._binary, "--bind", "127.0.0.1", "--port", str(self.port), *keeping],
            stdout=subprocess.DEVNULL,
        )
        retry = Retry(ConstantBackoff(0.1), START_TRIES)
        client = redis.Redis(port=self.port, retry=retry, retry_on_error=[redis.ConnectionError])
        client.ping()
        client.close()

    def kill(self) -> None:
        """SIGKILL; whatever it held is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """SIGSTOP: connections stay open and nobody answers, as when a machine is cut off."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a `hang`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("the server is not running")
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
