"""Plain text: a file is a document, and a long one several."""

from collections.abc import Iterator

from proxy_models.text.formats.json_lines import text_lines
from proxy_models.text.formats.opened import OpenedFile
from proxy_models.text.reading import Reading

LONG_TEXT = 8192


def documents(file: OpenedFile, reading: Reading) -> Iterator[str]:
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
