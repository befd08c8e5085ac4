"""A JSON array of objects, or of strings: read an element at a time, however long it is."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from proxy_models.errors import CorpusError
from proxy_models.text.formats.lines import (
    FREE_BYTES,
    MAX_LINE_BYTES,
    MOST_EXPANSION,
    encodable,
    text_of,
)
from proxy_models.text.formats.opened import OpenedFile
from proxy_models.text.reading import Reading

_STEP_BYTES = 2**18
_SPACE = re.compile(r"[ \t\r\n]*")


def documents(file: OpenedFile, reading: Reading) -> Iterator[str]:
    """The text of each element. Raises `CorpusError` naming the element by its number, from 1, as a line."""
    for number, element in _Array(file).elements():
        try:
            text = _text_of(file, number, element, reading)
        except CorpusError as fault:
            file.faults.pass_over(fault, reading)
        else:
            yield text


def objects(file: OpenedFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of each element. Raises `CorpusError` where one is none."""
    for number, element in _Array(file).elements():
        if not isinstance(element, dict):
            raise CorpusError(file.path, number, "an element is no object")
        yield number, element


def _text_of(file: OpenedFile, number: int, element: object, reading: Reading) -> str:
    if isinstance(element, str):
        return encodable(file.path, number, element)
    if isinstance(element, dict):
        return text_of(file.path, number, element, reading)
    raise CorpusError(file.path, number, "an element is neither an object nor a string")


@dataclass
class _Array:
    """The array under way: ``text`` is what was read of it, ``at`` the place in that."""

    file: OpenedFile
    text: str = ""
    at: int = 0
    number: int = 1
    size: int = 0
    decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8-sig"))

    def elements(self) -> Iterator[tuple[int, object]]:
        """Number and value of each element."""
        self.take("[")
        if self.ahead() != "]":
            yield self.number, self.element()
            while self.ahead() == ",":
                self.at += 1
                self.number += 1
                yield self.number, self.element()
        self.take("]")
        if self.ahead():
            raise self.error("has something after its array")

    def element(self) -> object:
        self.ahead()
        while True:
            try:
                value, self.at = _DECODER.raw_decode(self.text, self.at)
                return value
            except RecursionError as error:
                raise self.error(f"not JSON: {error}") from error
            except ValueError as error:
                if len(self.text) - self.at > MAX_LINE_BYTES:
                    raise self.error(
                        f"longer than {MAX_LINE_BYTES} characters, or not JSON: {error}"
                    ) from error
                if not self.read_on():
                    raise self.error(f"not JSON: {str(error).partition(';')[0]}") from error

    def take(self, character: str) -> None:
        if self.ahead() != character:
            raise self.error(f"not a JSON array: there is no {character!r} where one belongs")
        self.at += 1

    def ahead(self) -> str:
        """The next character that is no space, nothing at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read_on():
                return ""

    def read_on(self) -> bool:
        """Read as much again as is waiting, so that a long element is looked at a few times only."""
        try:
            content = self.file.content.read(max(_STEP_BYTES, len(self.text) - self.at))
            more = self.decoder.decode(content, final=not content)
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8 (byte {error.object[error.start]:#04x})") from error
        self.size += len(content)
        if self.size > max(FREE_BYTES, MOST_EXPANSION * self.file.size):
            raise self.error(f"expands to over {MOST_EXPANSION} times its size")
        self.text, self.at = self.text[self.at :] + more, 0
        return bool(content)

    def error(self, reason: str) -> CorpusError:
        return CorpusError(self.file.path, self.number, reason)


_DECODER = json.JSONDecoder()
