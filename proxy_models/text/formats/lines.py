"""Lines of UTF-8: the JSON objects in them, or plain text, of which a file is a document and a long one several."""

import json
from collections.abc import Iterator

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.formats.opened import BROKEN, OpenedFile
from proxy_models.text.reading import BY_CONTENT, Reading, rendered

MAX_LINE_BYTES = 64 * 2**20
MOST_EXPANSION = 200
"""Text shrinks to a third or a tenth, templates to a hundredth; what expands further was made to."""
FREE_BYTES = 16 * 2**20
"""A file that expands to less is read whatever its ratio."""
MOST_BLANK_LINES = 100_000
"""Blank lines on end; more are no text, and take long to skip."""


def text_lines(file: OpenedFile, reading: Reading = BY_CONTENT) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its ending) of UTF-8 text; what is none is passed over where that is allowed.

    Raises `CorpusError` for a file that is not UTF-8, holds NUL bytes, a line over `MAX_LINE_BYTES` or too many
    blank ones, whose compression is damaged, or that expands over `MOST_EXPANSION` times.
    """
    number = size = blank = 0
    path, most = file.path, max(FREE_BYTES, MOST_EXPANSION * file.size)
    try:
        while line := file.content.readline(MAX_LINE_BYTES + 1):
            number += 1
            size += len(line)
            if size > most:
                raise CorpusError(path, number, f"expands to over {MOST_EXPANSION} times its size")
            blank = blank + 1 if line.isspace() else 0
            if blank > MOST_BLANK_LINES:
                raise CorpusError(path, number, f"over {MOST_BLANK_LINES} blank lines on end")
            if len(line) > MAX_LINE_BYTES:
                raise CorpusError(path, number, f"longer than {MAX_LINE_BYTES} bytes")
            try:
                text = _decoded(path, number, line)
            except CorpusError as fault:
                file.faults.pass_over(fault, reading)
            else:
                yield number, text
    except BROKEN as error:
        raise CorpusError(path, number + 1, f"broken compression: {error}") from error


def _decoded(path: DataPath, number: int, line: bytes) -> str:
    if b"\0" in line:
        raise CorpusError(path, number, "holds NUL bytes, so it is not text")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.object[error.start]:#04x} at column {error.start + 1})"
        raise CorpusError(path, number, reason) from error


def json_objects(file: OpenedFile) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, object) of every line that is not blank; `CorpusError` where a line is not a JSON object."""
    for number, line in text_lines(file):
        if not line.isspace():
            yield number, json_object(file.path, number, line)


def json_object(path: DataPath, number: int, line: str) -> dict[str, object]:
    """The object of a line. Raises `CorpusError` where there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(path, number, f"not JSON: {str(error).partition(';')[0]}") from error
    if not isinstance(record, dict):
        raise CorpusError(path, number, "not a JSON object")
    return record


TEXT_FIELD = "reading.text_field names one"


def text_field(
    path: DataPath, number: int, record: dict[str, object], field: str, advice: str = TEXT_FIELD
) -> str:
    """``record[field]``, nested where the name has dots, if it is text that UTF-8 can hold.

    ``advice`` is what to do where it has another name. Raises `CorpusError` naming file and line.
    """
    text = member(record, field)
    if not isinstance(text, str):
        others = ", ".join(name for name, value in record.items() if isinstance(value, str))
        hint = f"; its strings are {others[:200]}, and {advice}" if others else ""
        if advice == TEXT_FIELD and isinstance(text or record.get("messages"), list):
            hint = "; it has messages, and reading.chat is the template that makes text of them"
        raise CorpusError(path, number, f"has no string {field!r}{hint}")
    return encodable(path, number, text)


def member(record: dict[str, object], field: str) -> object:
    """``record[field]``, nested where the name has dots; None where there is none."""
    value: object = record.get(field)
    if value is None and "." in field:
        value = record
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
    return value


def text_of(path: DataPath, number: int, record: dict[str, object], reading: Reading) -> str:
    """The text of a record: a string, or its messages rendered. Raises `CorpusError` naming file and line."""
    if reading.chat is None:
        return text_field(path, number, record, reading.member)
    return encodable(path, number, rendered(path, number, member(record, reading.member), reading.chat))


def encodable(path: DataPath, number: int, text: str) -> str:
    """The text if UTF-8 can hold it, else `CorpusError` naming file and line."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(path, number, "holds half of a surrogate pair, which is not text") from error
    return text


def documents(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """The text of each line. Raises `CorpusError` as `json_objects` does, where nothing else is allowed for."""
    for number, line in text_lines(file, reading):
        if line.isspace():
            continue
        try:
            text = text_of(file.path, number, json_object(file.path, number, line), reading)
        except CorpusError as fault:
            file.faults.pass_over(fault, reading)
        else:
            yield text


LONG_TEXT = 8192


def plain_documents(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """A document a line where that is said, else of up to twice `LONG_TEXT` characters, cut at blank lines.

    Raises `CorpusError`.
    """
    if reading.format == "lines":
        yield from (line.rstrip("\r\n") for _, line in text_lines(file, reading))
        return
    part: list[str] = []
    length = 0
    for _, line in text_lines(file, reading):
        border = line.isspace() and length >= LONG_TEXT
        part.append(line)
        length += len(line)
        if border or length >= 2 * LONG_TEXT:
            yield "".join(part)
            part, length = [], 0
    if part:
        yield "".join(part)
