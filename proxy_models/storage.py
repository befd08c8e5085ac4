"""Files that are either whole or not there, whatever kills the process."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proxy_models.errors import StorageFailed


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of writing under ``path`` into `StorageFailed`, which is retryable."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(path, error.strerror or str(error)) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, flush it to the disk, then give it its name. Raises `StorageFailed`."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)
            _flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write sorted, indented JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a temporary name; it takes the name ``path`` when the block ends without error.

    One writer at a time: what a killed writer left under the temporary name is removed first.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                _flush(file)
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
            _flush(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
