"""Compressions, told by how a file begins, and streams of what is in it."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import zstandard

from proxy_models.stores.object_path import DataPath

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
