"""A file opened once: what it begins with tells its format, and the same stream is then read to its end."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import zstandard

from proxy_models.errors import CorpusError, ProxyError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_data, undigested
from proxy_models.text.reading import Reading

# Compressions, told by how a file begins, and streams of what is in it.

BROKEN = (zstandard.ZstdError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)
"""What a stream raises whose compression is damaged; bzip2 an OSError without a number."""
_READ_BYTES = 1024  # compressed bytes per step: a step of hostile zstd expands to about 32 MB at the worst


LARGEST_WINDOW = 2**31
"""Bytes a Zstandard decoder keeps of what it wrote, the most that ``zstd --long=31`` asks for; taken as it fills."""


class _ZstandardStream(io.RawIOBase):
    """Decompress frame after frame; unlike zstandard's own reader, a truncated last frame is an error."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source, self.pending = source, memoryview(b"")
        self.frame = _frame()
        self.inside = False  # within an unfinished frame

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.pending:
            compressed = self.frame.unused_data if self.frame.eof else b""
            compressed = compressed or self.source.read(_READ_BYTES)
            if self.frame.eof:
                self.frame, self.inside = _frame(), False
            if not compressed:
                if self.inside:
                    raise EOFError("the last Zstandard frame is cut short")
                return 0
            self.inside = True
            try:
                self.pending = memoryview(self.frame.decompress(compressed))
            except zstandard.ZstdError as error:
                if "too much memory" not in str(error):
                    raise
                reason = f"its Zstandard window is over the limit of {LARGEST_WINDOW} bytes (--long=31)"
                raise zstandard.ZstdError(reason) from error
        count = min(len(buffer), len(self.pending))
        buffer[:count] = self.pending[:count]
        self.pending = self.pending[count:]
        return count


def _frame() -> Any:  # of a type that the package does not name
    return zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()


@dataclass(frozen=True)
class Compression:
    """One that is read; ``begins`` are the bytes that a file of it begins with, one of them.

    ``suffixes`` are taken off a name before it is asked for the format inside.
    """

    name: str
    begins: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    decompressed: Callable[[IO[bytes]], io.RawIOBase | io.BufferedIOBase]


_SKIPPABLE = tuple(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))
"""Frames without text that seekable and parallel writers of Zstandard begin with."""
COMPRESSIONS = (
    Compression("gzip", (b"\x1f\x8b",), (".gz", ".gzip"), lambda file: gzip.GzipFile(fileobj=file)),
    Compression("Zstandard", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), (".zst", ".zstd"), _ZstandardStream),
    Compression("bzip2", (b"BZh",), (".bz2",), bz2.BZ2File),
    Compression("xz", (b"\xfd7zXZ\x00",), (".xz",), lzma.LZMAFile),
)
_SUFFIXES = tuple(suffix for one in COMPRESSIONS for suffix in one.suffixes)


def compression_of(beginning: bytes) -> Compression | None:
    """The compression of a file that begins so; None for a file as it is."""
    return next((one for one in COMPRESSIONS if beginning.startswith(one.begins)), None)


def plain_suffix(path: DataPath) -> str:
    """The lower-case suffix of a file's name, a compression's own suffix taken off."""
    path = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
    return path.suffix.lower()


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
