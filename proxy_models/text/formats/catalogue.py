"""The formats of files, each with the test of its content: the one place where a format is told.

The first format whose test holds is the file's; the name of a file is asked only where content does not say, of raw
token ids and of text that is none of what its suffix promises. What is refused is refused by its own name, for a
mixture over misread text is worse than an error.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import found
from proxy_models.text.formats import json_array, lines
from proxy_models.text.formats.opened import HEAD_BYTES, OpenedFile, plain_suffix
from proxy_models.text.reading import Reading
from proxy_models.text.token_files import (
    MEGATRON_INDEX,
    SUFFIXES,
    TokenLayout,
    datatrove_layout,
    megatron_layout,
    numpy_layout,
    raw_layout,
)

Family = Literal["records", "plain text", "token ids", "nothing"]
"""What files of one domain are of one kind with; "nothing" is left out."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: in messages and listings.
        is_it: whether a file's beginning is of it.
        family: None for what is refused.
        documents: reads text; None where there is none.
        records: reads objects with their numbers, for who wants more of them than a text; None where there are none.
        layout: finds token ids, by the size of their tokenizer's vocabulary where that is known.
        suffixes: of names that promise it; the first stands for it in the keys of shards.
        advice: what to do where it is refused.
    """

    name: str
    is_it: Callable[[OpenedFile], bool]
    family: Family | None = None
    documents: Callable[[OpenedFile, Reading], Iterator[str]] | None = None
    records: Callable[[OpenedFile], Iterator[tuple[int, dict[str, Any]]]] | None = None
    layout: Callable[[OpenedFile, int | None], TokenLayout] | None = None
    suffixes: tuple[str, ...] = ()
    advice: str = ""

    def key(self, file: OpenedFile) -> str:
        """What stands for the format in a shard's key: equal for equal reading."""
        suffix = plain_suffix(file.path)
        return suffix if not self.suffixes or suffix in self.suffixes else self.suffixes[0]

    def refusal(self, file: OpenedFile) -> CorpusError:
        """Why a file of it cannot be read."""
        return CorpusError(file.path, None, f"is {self.name}; {self.advice}")


def format_of(file: OpenedFile, reading: Reading) -> Format:
    """The format of an opened file; the one that is said, where one is."""
    if reading.format is not None:
        return EMPTY if EMPTY.is_it(file) else PLAIN_TEXT
    told = next(one for one in FORMATS if one.is_it(file))
    if told is not PLAIN_TEXT:
        return told
    suffix = plain_suffix(file.path)
    return next((one for one in FORMATS if suffix in one.suffixes and one.family == "records"), told)


def _begins(*beginnings: bytes) -> Callable[[OpenedFile], bool]:
    return lambda file: file.head.startswith(beginnings)


def _is_empty(file: OpenedFile) -> bool:
    return file.is_whole and not file.head.strip()


def _is_tar(file: OpenedFile) -> bool:
    return file.head[257:262] == b"ustar"


def _is_arrow_stream(file: OpenedFile) -> bool:
    """A continuation mark, the length of the schema and a flat buffer of such a length."""
    size = int.from_bytes(file.head[4:8], "little")
    return file.head.startswith(b"\xff\xff\xff\xff") and 0 < size < 2**24 and size % 8 == 0


def _is_wide_text(file: OpenedFile) -> bool:
    """A mark of UTF-16 or UTF-32, or every other byte zero, as of Latin letters in UTF-16."""
    head = file.head[: len(file.head) // 2 * 2]
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return True
    zeros = max(head[0::2].count(0), head[1::2].count(0))
    return len(head) >= 16 and zeros > 0.9 * len(head) / 2


_MEMBER = re.compile(rb'\{\s*(\}|"(?:[^"\\\n]|\\.)*"\s*:)')


def _first_line(file: OpenedFile) -> tuple[bytes, bool]:
    """The first line that is not blank, and whether it is whole."""
    head = file.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    line, ending, _ = head.partition(b"\n")
    return line.strip(), bool(ending) or file.is_whole


def _is_json_lines(file: OpenedFile) -> bool:
    """A line that is an object; or would be one if it were not cut short or damaged, which its reader then says."""
    line, is_whole = _first_line(file)
    return _MEMBER.match(line) is not None and (not is_whole or line.endswith(b"}"))


def _is_json_array(file: OpenedFile) -> bool:
    """An array of objects, or of strings as far as the head goes."""
    head = file.head.removeprefix(b"\xef\xbb\xbf").strip()
    if not head.startswith(b"["):
        return False
    inside = head[1:].lstrip()
    if inside.startswith(b"{"):
        return _MEMBER.match(inside) is not None
    if not inside.startswith(b'"'):
        return False
    return re.match(rb'("(?:[^"\\]|\\.)*"\s*,?\s*)+(\]|"|$)', inside, re.DOTALL) is not None


def _is_other_json(file: OpenedFile) -> bool:
    """An object over several lines or behind a record mark (RFC 7464), or a document that is a list."""
    head = file.head.removeprefix(b"\xef\xbb\xbf").strip().removeprefix(b"\x1e")
    if _MEMBER.match(head):
        return True
    if not head.startswith(b"["):
        return False
    text = head if file.is_whole else _first_line(file)[0]
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


_CHECKSUM = re.compile(rb"([0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{64}|[0-9a-fA-F]{128})(\s+\*?\S+)?")


def _is_checksums(file: OpenedFile) -> bool:
    rows = file.head.splitlines()
    rows = rows if file.is_whole else rows[:-1]
    return bool(rows) and all(_CHECKSUM.fullmatch(row.strip()) for row in rows)


_HEADER = re.compile(r"[^\W\d][\w .:/#()-]{0,60}")
_USUAL = frozenset({"text", "content", "body", "id", "url", "title", "label", "source", "date", "lang"})


def _is_csv(file: OpenedFile) -> bool:
    """A header of distinct names, and where the suffix does not say it rows of as many fields, where that is sure.

    The first name may be empty, that of the numbers which pandas writes before its rows.
    """
    is_named = plain_suffix(file.path) in (".csv", ".tsv")
    text = file.head.decode("utf-8-sig", errors="ignore")
    header = text.partition("\n")[0]
    for delimiter in ",\t;":
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        is_usual = not _USUAL.isdisjoint(map(str.lower, names))
        if len({*names}) < len(names) or not all(map(_HEADER.fullmatch, names if names[0] else names[1:])):
            continue
        if is_named and (len(names) > 1 or is_usual):
            return True
        if len(names) < 2:
            continue
        try:
            rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
        except csv.Error:
            continue
        rows = [row for row in (rows if file.is_whole else rows[:-1]) if row]
        is_even = {len(row) for row in rows} == {len(names)}
        if is_even and len(rows) >= 4 and (len(names) >= 3 or is_usual):
            return True
    return False


def _is_named(*suffixes: str) -> Callable[[OpenedFile], bool]:
    return lambda file: file.compression is None and file.path.suffix.lower() in suffixes


def _is_there(path: DataPath) -> bool:
    return found(path) is not None if isinstance(path, Path) else path.exists()


def _is_megatron(file: OpenedFile) -> bool:
    return _is_named(".bin")(file) and _is_there(file.path.with_suffix(".idx"))


def _is_note(file: OpenedFile) -> bool:
    """A sidecar, or what datatrove writes beside its ids."""
    name, _, suffix = file.path.name.rpartition(".")
    if suffix not in ("json", "index", "metadata", "loss") or not name.lower().endswith(SUFFIXES):
        return False
    return _is_there(file.path.with_name(name))


def _columns(reader: str) -> Callable[..., Iterator[Any]]:
    """A reader of `columns`, which is imported with Arrow when it reads."""

    def read(*given: Any) -> Iterator[Any]:
        from proxy_models.text.formats import columns

        return getattr(columns, reader)(*given)

    return read


def _uncompressed(test: Callable[[OpenedFile], bool]) -> Callable[[OpenedFile], bool]:
    return lambda file: file.compression is None and test(file)


_UNPACK = "unpack it"
_CONVERT = "write its text as Parquet or JSON lines"
_AS_TEXT = 'to read it as the text it is, say "reading": {"format": "text"}'
_PARQUET, _ARROW = _begins(b"PAR1"), _begins(b"ARROW1\0\0")
_of_parquet = _columns("parquet"), _columns("parquet_rows")
_of_arrow = _columns("arrow"), _columns("arrow_rows")

EMPTY = Format("empty", _is_empty, "nothing")
PLAIN_TEXT = Format("plain text", lambda file: True, "plain text", lines.plain_documents)
FORMATS: tuple[Format, ...] = (
    EMPTY,
    Format("a note beside token ids", _is_note, "nothing"),
    Format(
        "JSON lines",
        _is_json_lines,
        "records",
        lines.documents,
        lines.json_objects,
        suffixes=(".jsonl", ".ndjson"),
    ),
    Format("Parquet", _uncompressed(_PARQUET), "records", *_of_parquet, suffixes=(".parquet",)),
    Format("Arrow", _uncompressed(_ARROW), "records", *_of_arrow, suffixes=(".arrow", ".feather")),
    Format(
        "an Arrow stream",
        _uncompressed(_is_arrow_stream),
        "records",
        *_of_arrow,
        suffixes=(".arrow",),
    ),
    Format("compressed Parquet", _PARQUET, advice="decompress it; Parquet is compressed inside"),
    Format("compressed Arrow", _ARROW, advice="decompress it"),
    Format("encrypted Parquet", _begins(b"PARE"), advice="decrypt it"),
    Format("Feather of version 1", _begins(b"FEA1"), advice="write it as Feather of version 2, or Parquet"),
    Format("a zip archive (.zip, .npz, .docx)", _begins(b"PK\x03\x04", b"PK\x05\x06"), advice=_UNPACK),
    Format("a tar archive", _is_tar, advice=_UNPACK),
    Format("7z-compressed", _begins(b"7z\xbc\xaf\x27\x1c"), advice=_UNPACK),
    Format("a RAR archive", _begins(b"Rar!\x1a\x07"), advice=_UNPACK),
    Format("LZ4-compressed", _begins(b"\x04\x22\x4d\x18"), advice="compress it with Zstandard"),
    Format("Snappy-compressed", _begins(b"\xff\x06\x00\x00sNaPpY"), advice="compress it with Zstandard"),
    Format(
        "compressed twice", _begins(b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"), advice="compress it once"
    ),
    Format("lzip-compressed", _begins(b"LZIP\x01"), advice="compress it with Zstandard"),
    Format("ORC", _begins(b"ORC\x0a", b"ORC\x08", b"ORC\x11", b"ORC\x12"), advice=_CONVERT),
    Format("Avro", _begins(b"Obj\x01"), advice=_CONVERT),
    Format("HDF5", _begins(b"\x89HDF\r\n"), advice=_CONVERT),
    Format("an SQLite database", _begins(b"SQLite format 3\0"), advice=_CONVERT),
    Format("PDF", _begins(b"%PDF-"), advice="extract its text"),
    Format("a web archive (WARC)", _begins(b"WARC/1."), advice="extract the text of its pages"),
    Format(
        "a pointer of Git LFS", _begins(b"version https://git-lfs"), advice="fetch the file: git lfs pull"
    ),
    Format("an office document", _begins(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), advice="extract its text"),
    Format("an image", _begins(b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8"), advice="extract its text"),
    Format("an index of Megatron", _begins(MEGATRON_INDEX), "nothing"),
    Format(
        "token ids of NumPy",
        _uncompressed(_begins(b"\x93NUMPY")),
        "token ids",
        layout=numpy_layout,
        suffixes=(".npy",),
    ),
    Format("token ids of Megatron", _is_megatron, "token ids", layout=megatron_layout, suffixes=(".bin",)),
    Format(
        "token ids of datatrove", _is_named(".ds"), "token ids", layout=datatrove_layout, suffixes=(".ds",)
    ),
    Format(
        "raw token ids", _is_named(".npy", ".bin"), "token ids", layout=raw_layout, suffixes=(".npy", ".bin")
    ),
    Format("compressed token ids", _begins(b"\x93NUMPY"), advice="decompress them"),
    Format("UTF-16 or UTF-32", _is_wide_text, advice="convert it: iconv -f UTF-16 -t UTF-8"),
    Format(
        "a JSON array",
        _is_json_array,
        "records",
        json_array.documents,
        json_array.objects,
        suffixes=(".json",),
    ),
    Format(
        "JSON that is neither lines of objects nor an array of them",
        _is_other_json,
        advice=f"write an object a line; {_AS_TEXT}",
    ),
    Format("a list of checksums", _is_checksums, advice=_AS_TEXT),
    Format("CSV with a header", _is_csv, advice=f"{_CONVERT}; {_AS_TEXT}"),
    PLAIN_TEXT,
)
"""The first whose test holds; the last one's always does."""
assert HEAD_BYTES >= 512, "a tar archive is told by its first block"
