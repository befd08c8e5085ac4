"""Lines of plain, gzip and Zstandard files, streamed, with every failure naming its file and line."""

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import zstandard

from proxy_models.errors import CorpusError

MAX_LINE_BYTES = 64 * 2**20
COMPRESSED_SUFFIXES = (".gz", ".zst")
_READ_BYTES = 8192  # compressed bytes per step: a step of hostile zstd expands to about 250 MB at the worst


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


def plain_suffix(path: Path) -> str:
    """The lower-case suffix that tells the format, a compression's own suffix taken off."""
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return path.suffix.lower()


def _open(path: Path) -> io.BufferedIOBase:
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")
        case ".zst":
            return io.BufferedReader(_ZstandardStream(path.open("rb")), 2**16)
        case _:
            return path.open("rb")


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its ending) of a UTF-8 file, decompressed by its suffix.

    Raises `CorpusError` for a file that is missing or unreadable, not what its suffix says, not UTF-8,
    holding NUL bytes, or with a line over `MAX_LINE_BYTES`.
    """
    number = 0
    try:
        with _open(path) as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
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
