"""Tables of measured rates on disk: one JSON file for each device, version of PyTorch and number of threads.

Free of torch. Several processes may read and write at once: a writer holds the file's lock while it merges.
"""

import fcntl
import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy_models.errors import InvalidSpec, ProxyError
from proxy_models.planning.calibration import Calibration, Device
from proxy_models.storage import storage_errors, write_json

ASIDE = ".unreadable"
"""Added to the name of a file that could not be read when a new one takes its place."""


class UnreadableCalibration(ProxyError):
    """A file holds no calibration; the next one measured takes its place."""

    code = "unreadable_calibration"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); calibrate again, which replaces it")
        self.path = path


@dataclass(frozen=True)
class Calibrations:
    """What a directory holds: the tables, the one written last first, and what was wrong with the other files."""

    tables: tuple[Calibration, ...]
    unreadable: tuple[UnreadableCalibration, ...]


def file_of(directory: Path, device: Device) -> Path:
    """Where the table of a device lies."""
    said = f"{device.name} torch {device.torch_version} {device.threads} threads"
    return directory / f"{re.sub(r'[^a-z0-9.]+', '-', said.lower()).strip('-.')}.json"


def read_calibrations(directory: Path) -> Calibrations:
    """Every table in the directory; one that does not exist has none. Never raises for what a file holds."""
    tables, unreadable = [], []
    for path, changed, size in sorted(_files(directory), key=lambda found: -found[1]):
        try:
            tables.append(_read(path, changed, size))
        except UnreadableCalibration as error:
            unreadable.append(error)
    return Calibrations(tuple(tables), tuple(unreadable))


def _files(directory: Path) -> Iterator[tuple[Path, int, int]]:
    for path in directory.glob("*.json"):
        try:
            status = path.stat()
        except OSError:
            continue  # taken away since
        yield path, status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=64)
def _read(path: Path, _changed: int, _size: int) -> Calibration:
    return read_calibration(path)


def read_calibration(path: Path) -> Calibration:
    """One table; raises `UnreadableCalibration` naming the file."""
    try:
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, InvalidSpec) as error:
        raise UnreadableCalibration(path, str(error)) from error


def table_of(directory: Path, device: Device) -> Calibration | None:
    """The device's table, None where there is none or it cannot be read."""
    path = file_of(directory, device)
    try:
        found = read_calibration(path) if path.exists() else None
    except UnreadableCalibration:
        return None
    return found if found is not None and found.device == device else None


@contextmanager
def locked(directory: Path, device: Device) -> Iterator[None]:
    """Hold the right to write the device's table, waiting for it; the kernel takes it back from a dead process.

    Raises `StorageFailed` where the directory cannot be written.
    """
    path = file_of(directory, device).with_suffix(".lock")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def save(directory: Path, calibration: Calibration) -> Calibration:
    """Merge the table into the device's file and answer what that holds now. Raises `StorageFailed`."""
    with locked(directory, calibration.device):
        return save_locked(directory, calibration)


def save_locked(directory: Path, calibration: Calibration) -> Calibration:
    """`save` for who holds `locked` already."""
    path = file_of(directory, calibration.device)
    before = table_of(directory, calibration.device)
    if before is None and path.exists():
        with storage_errors(path):
            path.replace(path.with_name(path.name + ASIDE))
    merged = calibration if before is None else before + calibration
    write_json(path, merged.to_dict())
    return merged
