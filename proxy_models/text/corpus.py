"""Documents of corpus files: JSONL, plain text, Parquet, and sizes of pre-tokenized files. Free of torch.

What a document is:

- ``.jsonl``, ``.ndjson`` (also ``.gz``, ``.zst``): the string ``text`` of each line; blank lines are skipped.
- ``.parquet``: the column ``text``, row by row.
- ``.npy``, ``.bin``: see `token_files`.
- anything else (also ``.gz``, ``.zst``) is plain text: a file of up to `LONG_TEXT` characters is one document, a
  longer one is cut at blank lines into documents of that length (at line ends where no blank line comes within
  twice the length), so that a book has a held-out part like any domain.

Documents of white space only are left out. A file is a local one or an object in a store (`stores.object_path`).
Files are streamed, and every failure names its file and line.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import zstandard

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_data, open_seekable
from proxy_models.text.token_files import is_pretokenized, tokens_size

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


def _open(path: DataPath, digests: Digests | None) -> io.BufferedIOBase:
    stream = open_data(path, digests)
    match path.suffix.lower():
        case ".gz":
            return _GzipStream(stream)
        case ".zst":
            return io.BufferedReader(_ZstandardStream(stream), 2**16)
        case _:
            return stream


def text_lines(path: DataPath, digests: Digests | None = None) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its ending) of a UTF-8 file, decompressed by its suffix.

    Raises `CorpusError` for a file that is missing or unreadable, not what its suffix says, not UTF-8,
    holding NUL bytes, with a line over `MAX_LINE_BYTES`, too many blank
    ones, or expanding over `MOST_EXPANSION` times.
    """
    number = size = blank = 0
    try:
        most = max(FREE_BYTES, MOST_EXPANSION * path.stat().st_size)
        with _open(path, digests) as stream:
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


LONG_TEXT = 8192
MOST_EMPTY_DOCUMENTS = 100_000
"""On end; a file of them would hold up whoever looks for its first text."""
JSONL_SUFFIXES = (".jsonl", ".ndjson")


def read_documents(path: DataPath, digests: Digests | None = None) -> Iterator[str]:
    """The documents of a text file, in order. Raises `CorpusError` naming the file and line.

    With ``digests`` the file is read once and whole, and when it is read its digest is among them.
    Pre-tokenized files have no text of their own: use `token_files.read_token_documents`.
    """
    suffix = plain_suffix(path)
    if is_pretokenized(path):
        raise CorpusError(path, None, "holds token ids, not text")
    if suffix in JSONL_SUFFIXES:
        documents = _jsonl(path, digests)
    elif suffix == ".parquet":
        documents = _parquet(path, digests)
    else:
        documents = _plain(path, digests)
    return _with_text(path, documents)


def _with_text(path: DataPath, documents: Iterator[str]) -> Iterator[str]:
    empty = 0
    for document in documents:
        if document and not document.isspace():
            empty = 0
            yield document
        elif (empty := empty + 1) > MOST_EMPTY_DOCUMENTS:
            raise CorpusError(path, None, f"has over {MOST_EMPTY_DOCUMENTS} documents on end without text")


def json_objects(path: DataPath, digests: Digests | None = None) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, object) of every line that is not blank; `CorpusError` where a line is not a JSON object."""
    for number, line in text_lines(path, digests):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise CorpusError(path, number, f"not JSON: {error}") from error
        if not isinstance(record, dict):
            raise CorpusError(path, number, "not a JSON object")
        yield number, record


def text_field(path: DataPath, number: int, record: dict[str, object], field: str) -> str:
    """``record[field]`` if it is text that UTF-8 can hold, else `CorpusError` naming file and line."""
    text = record.get(field)
    if not isinstance(text, str):
        raise CorpusError(path, number, f"has no string {field!r}")
    return encodable(path, number, text)


def encodable(path: DataPath, number: int, text: str) -> str:
    """The text if UTF-8 can hold it, else `CorpusError` naming file and line."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(path, number, "holds half of a surrogate pair, which is not text") from error
    return text


def _jsonl(path: DataPath, digests: Digests | None) -> Iterator[str]:
    for number, record in json_objects(path, digests):
        yield text_field(path, number, record, "text")


def _plain(path: DataPath, digests: Digests | None) -> Iterator[str]:
    part: list[str] = []
    length = 0
    for _, line in text_lines(path, digests):
        border = line.isspace() and length >= LONG_TEXT
        part.append(line)
        length += len(line)
        if border or length >= 2 * LONG_TEXT:
            yield "".join(part)
            part, length = [], 0
    if part:
        yield "".join(part)


def _parquet(path: DataPath, digests: Digests | None) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with open_seekable(path, digests) as source, pyarrow.parquet.ParquetFile(source) as file:
            if "text" not in file.schema_arrow.names:
                raise CorpusError(path, None, "has no column 'text'")
            for batch in file.iter_batches(batch_size=512, columns=["text"]):
                for text in batch.column(0).to_pylist():
                    row += 1
                    if not isinstance(text, str):
                        raise CorpusError(path, row, "column 'text' is not a string")
                    yield encodable(path, row, text)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(path, row + 1 if row else None, f"not readable as Parquet: {error}") from error


@dataclass(frozen=True)
class CorpusProbe:
    """What a look at some files found.

    ``documents`` counts text documents only; ``size_bytes`` is UTF-8 bytes of text, and file bytes of
    pre-tokenized files; ``complete`` is False where the look stopped at its limit.
    """

    documents: int
    size_bytes: int
    complete: bool


def probe(paths: Sequence[DataPath], byte_limit: int) -> CorpusProbe:
    """Open every file and read up to ``byte_limit`` bytes of text over all of them.

    Each file is opened and its first document read, limit or not. Raises `CorpusError` for a file that is
    unreadable, malformed as far as it was read, or without any text.
    """
    documents = size_bytes = 0
    complete = True
    for path in paths:
        if is_pretokenized(path):
            size_bytes += tokens_size(path)
            continue
        count = 0
        for document in read_documents(path):
            count += 1
            size_bytes += len(document.encode())
            if size_bytes >= byte_limit:
                complete = False
                break
        if not count:
            raise CorpusError(path, None, "holds no text")
        documents += count
    return CorpusProbe(documents, size_bytes, complete)
