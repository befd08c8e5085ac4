"""Lines of plain, gzip and Zstandard files, streamed, with every failure naming its file and line."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO

import zstandard

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import open_data

MAX_LINE_BYTES = 64 * 2**20
COMPRESSED_SUFFIXES = (".gz", ".zst")
_READ_BYTES = 1024  # compressed bytes per step: a step of hostile zstd expands to about 32 MB at the worst
MOST_EXPANSION = 200
"""Text shrinks to a third or a tenth, templates to a hundredth; what expands further was made to."""
FREE_BYTES = 16 * 2**20
"""A file that expands to less is read whatever its ratio."""
MOST_BLANK_LINES = 100_000
"""Blank lines on end; more are no text, and take long to skip."""


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


def _open(path: DataPath) -> io.BufferedIOBase:
    match path.suffix.lower():
        case ".gz":
            return _GzipStream(open_data(path))
        case ".zst":
            return io.BufferedReader(_ZstandardStream(open_data(path)), 2**16)
        case _:
            return open_data(path)


def text_lines(path: DataPath) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its ending) of a UTF-8 file, decompressed by its suffix.

    Raises `CorpusError` for a file that is missing or unreadable, not what its suffix says, not UTF-8,
    holding NUL bytes, with a line over `MAX_LINE_BYTES`, too many blank
    ones, or expanding over `MOST_EXPANSION` times.
    """
    number = size = blank = 0
    try:
        most = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size)
        with _open(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                size += len(line)
                if size > most:
                    raise CorpusError(path, number, f"expands to over {MOST_EXPANSION} times its size")
                blank = blank + 1 if line.isspace() else 0
                if blank > MOST_BLANK_LINES:
                    raise CorpusError(path, number, f"over {MOST_BLANK_LINES} blank lines on end")
                if len(line) > MAX_LINE_BYTES:
                    raise CorpusError(path, number, f"longer than {MAX_LINE_BYTES} bytes")
                if b"\0" in line:
                    raise CorpusError(path, number, "holds NUL bytes, so it is not text")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.object[error.start]:#04x} at column {error.start + 1})"
        raise CorpusError(path, number, reason) from error
    except (zstandard.ZstdError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise CorpusError(path, number + 1, f"broken compression: {error}") from error
    except OSError as error:
        raise CorpusError(path, None, f"cannot be read: {error.strerror or error}") from error
