"""A file opened once: what it begins with tells its format, and the same stream is then read to its end."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from proxy_models.errors import CorpusError, ProxyError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_data, undigested
from proxy_models.text.formats.compression import BROKEN, Compression, compression_of
from proxy_models.text.reading import Reading

HEAD_BYTES = 4096
"""Of the decompressed content, by which a format is told."""


@dataclass(frozen=True)
class OpenedFile:
    """A file at its beginning.

    Attributes:
        path: as it is named, which may be a link to another name.
        size: bytes as stored.
        stored: the stream of these.
        content: the stream of what they are decompressed.
        compression: None for a file as it is.
        head: how the content begins, `HEAD_BYTES` of it or all.
        is_whole: whether that is all of it.
        digests: where those of files beside it go that belong to it; None where nobody wants them.
        faults: of lines that were passed over.
    """

    path: DataPath
    size: int
    stored: io.BufferedReader
    content: io.BufferedIOBase
    compression: Compression | None
    head: bytes
    is_whole: bool
    digests: Digests | None
    faults: "Faults" = field(default_factory=lambda: Faults())

    def read_to_end(self) -> None:
        """Read what is left, which belongs to the digest whoever needs it."""
        if self.digests is not None:
            while self.stored.read(2**20):
                pass

    @contextmanager
    def seekable(self) -> Iterator[IO[bytes]]:
        """The stored bytes for who reads here and there: of an object whose digest is wanted a temporary copy."""
        if self.digests is None or isinstance(self.path, Path):
            self.read_to_end()
            source = undigested(self.stored)
            source.seek(0)
            yield source
            source.seek(0, io.SEEK_END)
        else:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(self.stored, copy, 2**20)
                copy.seek(0)
                yield copy


@dataclass
class Faults:
    """Lines that are none of a document, where some are allowed for: how many, and the first."""

    lines: int = 0
    first: CorpusError | None = None

    def pass_over(self, fault: CorpusError, reading: Reading) -> None:
        """Count a line; raises what is wrong with it where none may be."""
        if not reading.bad_lines:
            raise fault
        self.lines += 1
        self.first = self.first or fault

    def add(self, other: "Faults") -> None:
        """Take in those of another file."""
        self.lines += other.lines
        self.first = self.first or other.first

    def check(self, documents: int, reading: Reading) -> None:
        """Raise the first, with how many there are, where they are more than is allowed for beside the documents."""
        total = documents + self.lines
        if self.first is not None and self.lines > reading.bad_lines * total:
            said = f"{self.first.reason}; {self.lines} of {total} lines are no documents, more than"
            reason = f"{said} the {reading.bad_lines:g} of them that bad_lines allows"
            raise CorpusError(self.first.path, self.first.line, reason)


@contextmanager
def opened(path: DataPath, digests: Digests | None = None) -> Iterator[OpenedFile]:
    """The file at ``path``, decompressed by its content.

    With ``digests`` the digest of all that is read of it is among them. What reading it raises within the block, a
    damaged compression for one, is a `CorpusError` of this file.
    """
    with naming(path), open_data(path, digests) as stored:
        size = _size(path, stored)
        compression = compression_of(stored.peek(8)[:8])
        if compression is None:
            head = stored.peek(HEAD_BYTES)[:HEAD_BYTES]
            yield OpenedFile(path, size, stored, stored, None, head, len(head) == size, digests)
            return
        with compression.decompressed(stored) as inner:
            head = _beginning(inner)
            content = io.BufferedReader(_Resumed(head, inner), 2**16)
            yield OpenedFile(path, size, stored, content, compression, head, len(head) < HEAD_BYTES, digests)


@contextmanager
def naming(path: DataPath) -> Iterator[None]:
    """Turn what reading a file raises into `CorpusError`."""
    try:
        yield
    except BROKEN as error:
        raise CorpusError(path, None, f"broken compression: {error}") from error
    except OSError as error:
        is_bzip2 = error.errno is None and not isinstance(error, ProxyError)
        reason = f"broken compression: {error}" if is_bzip2 else f"cannot be read: {error.strerror or error}"
        raise CorpusError(path, None, reason) from error


def _size(path: DataPath, stored: io.BufferedReader) -> int:
    if not isinstance(path, Path):
        return path.stat().st_size
    return os.fstat(undigested(stored).fileno()).st_size


def _beginning(inner: io.RawIOBase | io.BufferedIOBase) -> bytes:
    head = b""
    while len(head) < HEAD_BYTES and (more := inner.read(HEAD_BYTES - len(head))):
        head += more
    return head


class _Resumed(io.RawIOBase):
    """What was read ahead, and then the rest."""

    def __init__(self, head: bytes, rest: io.RawIOBase | io.BufferedIOBase) -> None:
        self.head, self.rest = memoryview(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self.head:
            return self.rest.readinto(buffer) or 0
        count = min(len(buffer), len(self.head))
        buffer[:count] = self.head[:count]
        self.head = self.head[count:]
        return count
