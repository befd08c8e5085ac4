"""What a running service leaves in its data directory: a lock while it lives, its address once it answers."""

import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

LOCK_NAME = "serve.lock"
RECORD_NAME = "service.json"
LOCK_PATIENCE_SECONDS = 1.0
"""Longer than anybody holds the lock only to look whether it is held."""


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
        draft = data_directory / f".{RECORD_NAME}-{os.getpid()}-{secrets.token_hex(4)}"
        draft.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        draft.replace(data_directory / RECORD_NAME)

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
        """Take the lock, or raise AlreadyServed naming the service that has it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
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
