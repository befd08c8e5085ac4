"""The pool of the benchmark on real text and what becomes of it: five updates, as patches with their files.

The text is the demo's. The files that an update needs beside it (a domain filtered again, the parts of one that is
split) hold lines of the demo's own files, and are written once.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.demo.corpora import DemoCorpora

Document = dict[str, Any]

FIRST = (
    "data:api-schemas",
    "docs:aws-api",
    "code:cpp",
    "books:shakespeare",
    "books:bible-web",
    "multi:ui-strings",
    "legal:licenses",
    "docs:web:guides",
)
ADDED = (("ref:dictionary", "code:python:web", "data:tables"), ("docs:math", "code:python:algorithms"))
REVISED = "code:cpp"
REMOVED = "legal:licenses"
SPLIT = "docs:aws-api"

LARGEST_PREPROCESSOR_SHARE = 1 / 3
"""Of a C++ document's lines: above it a header mostly includes and configures others."""
_READING = re.compile(r"(?:Batch)?(?:Get|List|Describe|Search|Query|Scan|Head|Lookup|Select|View)[A-Z]")
_CHANGING = re.compile(
    r"(?:Batch)?(?:Create|Update|Delete|Put|Start|Stop|Tag|Untag|Modify|Associate|Disassociate|Import|Cancel|Remove|Add"
    r"|Disable|Enable|Register|Deregister|Set|Accept|Reject|Attach|Detach|Send|Restore|Reset|Copy|Publish)[A-Z]"
)


@dataclass(frozen=True, slots=True)
class Update:
    """One change of the pool: what it is called, and the patch that makes it."""

    name: str
    patch: Document


def first_domains(corpora: DemoCorpora) -> list[Document]:
    """The pool before any update, as the API takes it."""
    return [_domain(name, corpora.domains[name]) for name in FIRST]


def updates(corpora: DemoCorpora, directory: Path) -> tuple[Update, ...]:
    """The five updates in their order; files that are not there yet are written below ``directory``."""
    filtered = directory / "code.cpp.jsonl"
    _write_once(filtered, _lines_where(corpora.domains[REVISED], is_code))
    parts = []
    for part in ("reading", "changing", "types"):
        path = directory / f"docs.aws-api.{part}.jsonl"
        _write_once(path, _lines_where(corpora.domains[SPLIT], lambda text, part=part: part_of(text) == part))
        parts.append(_domain(f"{SPLIT}:{part}", path))
    return (
        *(
            Update(f"add {len(names)}", {"add": [_domain(name, corpora.domains[name]) for name in names]})
            for names in ADDED
        ),
        Update("revise 1", {"revise": [_domain(REVISED, filtered)]}),
        Update("remove 1", {"remove": [REMOVED]}),
        Update("split 1 into 3", {"split": [{"domain": SPLIT, "into": parts}]}),
    )


def is_code(text: str) -> bool:
    """Whether a C++ document is kept when `REVISED` is filtered again: it is not mostly preprocessor lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    directives = sum(line.lstrip().startswith("#") for line in lines)
    return directives <= LARGEST_PREPROCESSOR_SHARE * len(lines)


def part_of(text: str) -> str:
    """The part of `SPLIT` a document goes to: operations that read, operations that change something, types."""
    if _READING.match(text):
        return "reading"
    return "changing" if _CHANGING.match(text) else "types"


def _domain(name: str, path: Path) -> Document:
    return {"name": name, "files": [str(path)]}


def _lines_where(path: Path, wanted: Callable[[str], bool]) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            document: Mapping[str, str] = json.loads(line)
            if wanted(document["text"]):
                yield line


def _write_once(path: Path, lines: Iterator[str]) -> None:
    """Files are known by their time as well: one that holds the same already is left alone."""
    content = "".join(lines)
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".scratch")
    scratch.write_text(content)
    scratch.replace(path)
