"""Files that are either whole or not there, whatever kills the process."""

import errno
import fcntl
import glob
import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from proxy_models.errors import ProxyError, StorageFailed

SUFFIX = "tmp"
RENAMES = 100


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of writing under ``path`` into `StorageFailed`, which is retryable."""
    try:
        yield
    except ProxyError:  # an object that is missing where it was read from is no failure to write
        raise
    except OSError as error:
        raise StorageFailed(path, error.strerror or str(error)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file is, waiting for it; the kernel takes it back from a dead process.

    Raises `StorageFailed` where it cannot be written.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("wb")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def flush(path: Path) -> None:
    """Have a file or folder on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file of this mode (less the umask), flush it to the disk, give it its name. Raises `StorageFailed`."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            temporary.touch(mode)
            temporary.write_bytes(content)
            flush(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        flush(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write sorted, indented JSON atomically."""
    write_atomically(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory under a temporary name; it takes the name ``path`` when the block ends without error.

    Of several writers each has a temporary name of its own, so that no directory is two writers' halves: a worker
    that was taken for dead may wake up and write what the one that has its job now writes too. The first to end
    removes what the others have begun, which are mostly dead; one that lives gets a `StorageFailed`, and tries again.
    """
    with unnamed_directory(path) as temporary:
        yield temporary
        name_directory(temporary, path)


@contextmanager
def unnamed_directory(path: Path) -> Iterator[Path]:
    """`new_directory` for who knows its name only when it is filled: without `name_directory` nothing of it stays."""
    temporary = _temporary(path)
    with storage_errors(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            _remove_unfinished(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def name_directory(temporary: Path, path: Path) -> None:
    """Have what was filled on the disk, then give it its name. Raises OSError."""
    for file in temporary.iterdir():
        flush(file)
    _rename_over(temporary, path)
    flush(path.parent)
    _remove_unfinished(path)


def _remove_unfinished(path: Path) -> None:
    for other in path.parent.glob(f".{glob.escape(path.name)}.*{SUFFIX}"):
        shutil.rmtree(other, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{SUFFIX}")


def _rename_over(temporary: Path, path: Path) -> None:
    """Give a directory its name; whatever has it already is moved out of the way and removed."""
    old = _temporary(path)
    for _ in range(RENAMES):
        try:
            temporary.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another writer has moved it
            path.rename(old)
            shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "others write the same directory again and again")


# An archive that comes piece by piece, as the folder it holds.


class _Stream(io.RawIOBase):
    """Pieces of bytes, none of them empty or longer than is asked for, as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return next(self._pieces, b"")


def unpack_folder(pieces: Iterator[bytes], directory: Path) -> None:
    """Write the one folder of an archive, in pieces of at most `tarfile.RECORDSIZE`, as a new ``directory``.

    Raises tarfile.TarError for an archive that is cut short, has no single folder, or reaches out of it.
    """
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        with tarfile.open(fileobj=_Stream(pieces), mode="r|") as archive:
            archive.extractall(temporary, filter="data")
        folders = list(temporary.iterdir())
        if len(folders) != 1 or not folders[0].is_dir():
            raise tarfile.ReadError("the archive holds no single folder")
        folders[0].rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
