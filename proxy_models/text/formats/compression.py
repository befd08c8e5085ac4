"""Streams of the decompressed bytes of a file."""

import gzip
import io
import zlib
from typing import IO

import zstandard

from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_data

COMPRESSED_SUFFIXES = (".gz", ".zst")
BROKEN = (zstandard.ZstdError, gzip.BadGzipFile, zlib.error, EOFError)
"""What a stream raises whose compression is damaged."""
_READ_BYTES = 1024  # compressed bytes per step: a step of hostile zstd expands to about 32 MB at the worst


class _ZstandardStream(io.RawIOBase):
    """Decompress frame after frame; unlike zstandard's own reader, a truncated last frame is an error."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source, self.pending = source, memoryview(b"")
        self.frame = zstandard.ZstdDecompressor().decompressobj()
        self.inside = False  # within an unfinished frame

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.source.close()
        super().close()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self.pending:
            compressed = self.frame.unused_data if self.frame.eof else b""
            compressed = compressed or self.source.read(_READ_BYTES)
            if self.frame.eof:
                self.frame, self.inside = zstandard.ZstdDecompressor().decompressobj(), False
            if not compressed:
                if self.inside:
                    raise EOFError("the last Zstandard frame is cut short")
                return 0
            self.inside = True
            self.pending = memoryview(self.frame.decompress(compressed))
        count = min(len(buffer), len(self.pending))
        buffer[:count] = self.pending[:count]
        self.pending = self.pending[count:]
        return count


class _GzipStream(gzip.GzipFile):
    """Closes the file it reads, which ``gzip`` leaves to whoever opened it."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        super().__init__(fileobj=source, mode="rb")

    def close(self) -> None:
        super().close()
        self.source.close()


def plain_suffix(path: DataPath) -> str:
    """The lower-case suffix that tells the format, a compression's own suffix taken off."""
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return path.suffix.lower()


def open_decompressed(path: DataPath, digests: Digests | None) -> io.BufferedIOBase:
    """The file at ``path``, decompressed by its suffix. Raises what `open_data` does."""
    stream = open_data(path, digests)
    match path.suffix.lower():
        case ".gz":
            return _GzipStream(stream)
        case ".zst":
            return io.BufferedReader(_ZstandardStream(stream), 2**16)
        case _:
            return stream
