"""Where a service answers and what it keeps in its data directory: its socket, its lock, its address, its token.

The socket is opened before any process that answers on it, and belongs to the process that keeps the web process
running: while the latter is started again connections wait in the queue instead of being refused. The lock is held
while the service lives; the address is written once it answers.
"""

import errno
import fcntl
import http.client
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from proxy_models.storage import write_json
from proxy_models.stores.file_system import again
from store.settings import Settings

LOCK_NAME = "serve.lock"
RECORD_NAME = "service.json"
LOCK_PATIENCE_SECONDS = 1.0
"""Longer than anybody holds the lock only to look whether it is held."""


class UnusableDirectory(RuntimeError):
    """The data directory cannot be made, or nothing can be written into it."""


class AlreadyServed(RuntimeError):
    """Another service has this data directory."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """Where the service of a data directory answers, and the process that keeps it running."""

    url: str
    pid: int

    @classmethod
    def read(cls, data_directory: Path) -> Self | None:
        """The record in ``data_directory``; None when no service has answered there, or it has ended."""
        try:
            document = json.loads((data_directory / RECORD_NAME).read_text(encoding="utf-8"))
            return cls(url=str(document["url"]), pid=int(document["pid"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, data_directory: Path) -> None:
        """Put the record in its place in one step: a reader sees the old one, this one or none."""
        write_json(data_directory / RECORD_NAME, asdict(self))

    @staticmethod
    def remove(data_directory: Path) -> None:
        """Say that nothing answers any more."""
        (data_directory / RECORD_NAME).unlink(missing_ok=True)


class ServeLock:
    """``flock`` on the data directory: the kernel gives it back however its holder ends."""

    def __init__(self, data_directory: Path) -> None:
        self._directory = data_directory
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock; raises AlreadyServed naming the service that has it, and UnusableDirectory."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise UnusableDirectory(
                f"the data directory {self._directory} cannot be used ({error.strerror}): choose another with --data"
            ) from error
        take = partial(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            again(take, BlockingIOError, LOCK_PATIENCE_SECONDS, 0.05)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AlreadyServed(self._complaint()) from error
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _complaint(self) -> str:
        record = ServiceRecord.read(self._directory)
        where = f" at {record.url} (process {record.pid})" if record else ""
        return (
            f"the data directory {self._directory} is already served{where}; stop that service or use --data"
        )

    @staticmethod
    def is_held(data_directory: Path) -> bool:
        """Whether a service has this data directory now."""
        try:
            descriptor = os.open(data_directory / LOCK_NAME, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


BACKLOG = 1024
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class PortInUse(RuntimeError):
    """Another program listens there."""


def listen(host: str, port: int, patience_seconds: float = 0.0) -> socket.socket:
    """A listening socket on ``host`` and ``port`` (0: any free one).

    Raises PortInUse when another program still has the port after ``patience_seconds``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def opened() -> socket.socket:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise PortInUse(
                f"port {port} on {host} is in use by another program; "
                "choose another with --port, or 0 for any free one"
            ) from error

    return again(opened, PortInUse, patience_seconds, 0.1)


def address(listener: socket.socket) -> str:
    """The URL a program on this machine reaches the listener under."""
    host, port = listener.getsockname()[:2]
    host = _ANY_ADDRESS.get(str(host), str(host))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def answers(url: str, timeout_seconds: float = 1.0) -> bool:
    """Whether ``/healthz`` of the service at ``url`` answers 200.

    Not through a client that reads proxy settings: the address is on this machine.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# The operator's token: of the environment, or in a file its owner alone can read, made on first start.


class UnprotectedBind(RuntimeError):
    """The service was asked to listen beyond this machine before anybody gave it a token."""


def token_file(settings: Settings) -> Path:
    """Where a token made by the service itself is kept."""
    return settings.data_directory / "token"


def load_token(settings: Settings) -> str:
    """The operator's token, or the one in the data directory, made now (mode 0600) when there is none.

    Raises UnprotectedBind for an address other machines can reach when no token exists yet: a token nobody
    chose and nobody has seen protects nothing that was meant to be shared.
    """
    if settings.token:
        return settings.token
    path = token_file(settings)
    if not path.exists():
        if not settings.is_loopback:
            raise UnprotectedBind(
                f"refusing to listen on {settings.host} without a token: set MIXWRIGHT_TOKEN "
                "(at least 16 characters), or bind 127.0.0.1"
            )
        _create_token(path)
    return path.read_text(encoding="ascii").strip()


def _create_token(path: Path) -> None:
    # Written whole beside its place and linked there: of two processes that start at once the first wins,
    # and no reader ever sees half a token.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".token-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
