"""What the demo's text is made of: which files of which package (`sources.yaml`), and how their text is had.

An example of a task is ``{"context", "continuation"}``: the problem as it is put to a model, and the gold answer. A
document that shares a run of words with a task is left out of the training text (`TaskText`).

Each extractor takes one file of an archive (a plain file, a PO catalogue, a service model, a dictionary, verses) and
yields its texts, or a task's examples; `pieces` then cuts what is too long for a document. The same bytes give the
same texts on any machine and Python.
"""

import ast
import gzip
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.demo.packages import Package

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


LARGEST_TASK_BYTES = 20_000
"""Of continuations, so that an evaluation takes seconds; examples are taken in the order of their SHA-256."""
STEP_BY_STEP = " Let's think step by step."

Example = dict[str, str]


def code_problems(content: bytes) -> Iterator[Example]:
    """HumanEval: the head of a function with its docstring, and a body that passes the tests."""
    for line in gzip.decompress(content).decode().splitlines():
        problem = json.loads(line)
        yield {"context": problem["prompt"], "continuation": problem["canonical_solution"]}


def multiple_choice_answers(content: bytes) -> Iterator[Example]:
    """The few-shot prompts of MMLU with reasoning: a question with its choices, and the reasoning to the answer."""
    for prompt in json.loads(content).values():
        for block in re.split(r"\n\n(?=Q: )", prompt)[1:]:
            question, _, answer = block.strip().partition("\nA:")
            yield {
                "context": f"{question}\nA:{STEP_BY_STEP}",
                "continuation": answer.removeprefix(STEP_BY_STEP),
            }


def worked_answers(content: bytes) -> Iterator[Example]:
    """The few-shot samples of a BIG-Bench Hard task or of GSM8K (YAML), or of MATH (a list in a Python file)."""
    if b"def list_fewshot_samples" in content:
        for sample in _returned_list(content.decode(), "list_fewshot_samples"):
            yield {
                "context": f"Problem:\n{sample['problem']}\n\nSolution:",
                "continuation": f" {sample['solution']}",
            }
        return
    for sample in _samples(content):
        if "question" in sample:
            yield {"context": f"Q: {sample['question']}\nA:", "continuation": f" {sample['target']}"}
        else:
            yield {
                "context": f"Q: {sample['input']}\nA:{STEP_BY_STEP}\n",
                "continuation": sample["target"].removeprefix("Let's think step by step.\n"),
            }


def _samples(content: bytes) -> list[dict[str, str]]:
    return yaml.safe_load(content)["fewshot_config"]["samples"]


def _returned_list(source: str, function: str) -> list[dict[str, Any]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            last = node.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                return ast.literal_eval(last.value)
    raise ValueError(f"no {function} that returns a literal")


@dataclass(frozen=True, slots=True)
class Source:
    """A task, or what a domain has in common with one: the texts in the files of ``package`` whose names match."""

    name: str
    package: Package
    members: str
    """Regular expression that the whole name of a file in the archive matches."""
    extract: Callable[[bytes], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class DomainSource(Source):
    """One domain, in documents of bounded length."""

    largest_bytes: int
    """Cap on the domain's UTF-8 bytes: documents are taken in the order of their SHA-256 until it is reached."""
    longest_document: int = 8000
    """Characters; the small domains have short documents, so that each has a held-out slice."""


_TABLE = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8"))
_PACKAGES = [Package(filename, sha256) for filename, sha256 in _TABLE["packages"].items()]
PACKAGES = {package.name: package for package in _PACKAGES}
EXTRACTORS = {
    extract.__name__: extract
    for extract in (
        *(plain, license_text, scenes, translations, api_schema, api_documentation, dictionary_entries),
        *(chapters, table_rows, code_problems, multiple_choice_answers, worked_answers),
    )
}


def _listed(kind: str) -> Iterator[dict[str, Any]]:
    for row in _TABLE[kind]:
        yield {**row, "package": PACKAGES[row["package"]], "extract": EXTRACTORS[row["extract"]]}


DOMAINS = tuple(DomainSource(**row) for row in _listed("domains"))
TASKS = tuple(Source(**row) for row in _listed("tasks"))

RUN_WORDS = 13
PROBE_WORDS = RUN_WORDS // 2 + 1
"""Any common run of `RUN_WORDS` words holds a probe that starts at a multiple of this in the document."""


class TaskText:
    """The word runs of all tasks, to hold documents against."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._probes: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            words = text.split()
            self._probes.update(_runs(words, PROBE_WORDS))
            self._runs.update(_runs(words, RUN_WORDS))

    def shares_a_run(self, document: str) -> bool:
        """Whether `RUN_WORDS` consecutive words of the document are consecutive words of a task."""
        words = document.split()
        starts = range(0, len(words) - PROBE_WORDS + 1, PROBE_WORDS)
        return any(
            tuple(words[start : start + PROBE_WORDS]) in self._probes and self._runs_around(words, start)
            for start in starts
        )

    def _runs_around(self, words: list[str], start: int) -> bool:
        first = max(0, start + PROBE_WORDS - RUN_WORDS)
        around = words[first : start + RUN_WORDS]
        return any(run in self._runs for run in _runs(around, RUN_WORDS))


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
