"""Opening corpus files only where the operator allows it, at the moment they are opened.

A path is checked when it is posted and read hours later by a worker; meanwhile a folder of it may have become a link
to somewhere else. So what is checked here is the file that was opened, not the name it was opened by. The address of
an object in a store is its only name (`stores.object_path`), so for it the name is enough.
"""

import hashlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath, ObjectPath, data_path

Digests = dict[DataPath, Any]
"""A `hashlib` object for each file, of everything that was read of it."""

_allowed: tuple[DataPath, ...] | None = None  # of the whole process: a worker's child has one job at a time


@contextmanager
def reading_below(roots: Sequence[DataPath | str] | None) -> Iterator[None]:
    """Within the block `open_data` opens only what is below these resolved roots; None allows every file."""
    global _allowed
    before = _allowed
    _allowed = None if roots is None else tuple(data_path(str(root)) for root in roots)
    try:
        yield
    finally:
        _allowed = before


def open_data(path: DataPath, digests: Digests | None = None) -> io.BufferedReader:
    """The regular file or object at ``path``, for reading; with ``digests`` in order, and into its digest.

    Raises OSError, `StoreError`, and `CorpusError` for anything else than a file and for one outside.
    """
    stream = _opened(path)
    if digests is None:
        return stream
    digests[path] = hashlib.sha256()
    return io.BufferedReader(_DigestedStream(stream, digests[path]), 2**17)


def _opened(path: DataPath) -> io.BufferedReader:
    if isinstance(path, ObjectPath):
        require_allowed(path)
        return path.open()
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make us wait
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise CorpusError(path, None, "is not a regular file")
        require_allowed(path, opened)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


class _DigestedStream(io.RawIOBase):
    """Whatever is read of ``source`` goes into ``digest`` too."""

    def __init__(self, source: io.BufferedReader, digest: Any) -> None:
        self.source, self.digest = source, digest

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.source.tell()

    def readinto(self, buffer: Any) -> int:
        count = self.source.readinto(buffer)
        self.digest.update(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self.source.close()
        super().close()


@contextmanager
def open_seekable(path: DataPath, digests: Digests | None = None) -> Iterator[IO[bytes]]:
    """`open_data` for who reads here and there; with ``digests`` of an object a copy, in the temporary directory."""
    if digests is None or isinstance(path, Path):
        with open_data(path) as file:
            if digests is not None:
                digests[path] = hashlib.file_digest(file, hashlib.sha256)
                file.seek(0)
            yield file
        return
    with open_data(path, digests) as source, tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(source, copy, 2**20)
        copy.seek(0)
        yield copy


def require_allowed(path: DataPath, opened: os.stat_result | None = None) -> None:
    """Raise `CorpusError` where ``path`` leads outside the allowed roots, or elsewhere than to ``opened``."""
    if _allowed is None:
        return
    if isinstance(path, ObjectPath):
        if not any(isinstance(root, ObjectPath) and path.is_below(root) for root in _allowed):
            raise CorpusError(path, None, "lies outside the data roots")
        return
    real = path.resolve()
    inside = any(isinstance(root, Path) and real.is_relative_to(root) for root in _allowed)
    if not inside or (opened is not None and not os.path.samestat(opened, real.stat())):
        raise CorpusError(path, None, "leads outside the data roots, or was exchanged while it was opened")
