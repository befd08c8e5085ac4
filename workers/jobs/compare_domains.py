"""Finding the text that domains of a revision have in common, and the tasks they train on, once all are counted.

A domain that leaves to others what they hold too is counted again without it, from its files: so it is, its held-out
slice included, what it would be if its files did not have it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.document import from_document, to_document
from proxy_models.errors import ProxyError
from proxy_models.stores.current import local_artifact, one_file_each, using_store
from proxy_models.stores.object_path import data_path
from proxy_models.text.document_index import DOCUMENTS, SharedText, left_to_others, shared_texts
from proxy_models.text.reading import Reading
from proxy_models.text.task_file import TaskExample, read_task
from store.documents import SwarmDocument, TaskDocument
from store.revisions.shared_text import asked_of, asked_tasks
from store.settings import Settings
from store.tables import Document, Job, Optimization, Revision
from workers.jobs import prepare_domain

if TYPE_CHECKING:
    from proxy_models.text.tokenizer import TextTokenizer

MOST_SETS = 100
"""Sets of domains with text in common that are told of, those with the most of it."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The shards, which have their documents' digests, the tokenizer, to show some of the text, and tasks."""
    revision = session.get_one(Revision, job.subject)
    return {
        "tasks": [to_document(task) for task in _tasks(session, revision)],
        "shards": {row.name: row.shard_directory for row in revision.domains},
        "giving": {
            row.name: prepare_domain.order(row, settings)
            for row in revision.domains
            if Reading.of(row.reading).copies == "drop_shared"
        },
        "tokenizer": revision.tokenizer_path,
        **settings.store_order,
    }


def _tasks(session: Session, revision: Revision) -> list[TaskDocument]:
    """What the text is to be held against, and what optimizations of the domain set asked for: they will again."""
    query = (
        select(Optimization)
        .join(Revision, Revision.id == Optimization.revision_id)
        .where(Revision.domain_set_id == revision.domain_set_id)
        .order_by(Optimization.created_at.desc(), Optimization.id.desc())
        .limit(MOST_SETS)
    )
    tasks = {task.identity: task for task in asked_tasks(revision)}
    for optimization in session.scalars(query):
        tasks |= {task.identity: task for task in SwarmDocument.of(optimization).tasks if task.path}
    return list(tasks.values())


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """What is held by several domains, and which of them could not be compared."""
    from proxy_models.text.tokenizer import load_tokenizer

    recounted = _without_shared(spec, report)
    shards = {**spec["shards"], **{name: counted["directory"] for name, counted in recounted.items()}}
    with using_store(spec.get("artifact_store")), one_file_each(shards, DOCUMENTS) as indexes:
        found = shared_texts(indexes)[:MOST_SETS]
        tokenizer = load_tokenizer(local_artifact(spec["tokenizer"])) if found else None
        return {
            "texts": [
                {
                    "domains": list(text.domains),
                    "documents": text.documents,
                    "tokens": dict(text.tokens),
                    "examples": _examples(text, indexes[text.domains[0]].parent, tokenizer),
                }
                for text in found
            ],
            "not_compared": sorted(set(shards) - set(indexes)),
            "tasks": held_against(_readable(spec.get("tasks", [])), shards, spec["tokenizer"]),
            "recounted": recounted,
        }


def _without_shared(spec: Document, report: Callable[[Document], None]) -> Document:
    """What is counted of the domains that leave something to others, without it."""
    giving = spec.get("giving", {})
    if not giving:
        return {}
    with using_store(spec.get("artifact_store")), one_file_each(spec["shards"], DOCUMENTS) as indexes:
        left = left_to_others(indexes, giving)
    return {name: prepare_domain.execute(giving[name], report, digests) for name, digests in left.items()}


def _readable(tasks: Sequence[Document]) -> list[TaskDocument]:
    """Those whose files are still there and as they were said to be."""
    found = []
    for task in (from_document(TaskDocument, task) for task in tasks):
        with suppress(ProxyError, OSError):
            examples_of(task)
            found.append(task)
    return found


def examples_of(task: TaskDocument) -> tuple[TaskExample, ...]:
    """Of a task that has a file. Raises `CorpusError`, OSError."""
    assert task.path, "what is measured elsewhere has no file here"
    return read_task(data_path(task.path), task.scored, task.fields)


def held_against(tasks: Sequence[TaskDocument], shards: Mapping[str, str], tokenizer: str) -> Document:
    """`{identity of a task: what the shards train on of it}`, with its name.

    Raises `CorpusError`, `DataMissing`, `StoreError`.
    """
    if not tasks:
        return {}
    from proxy_models.text.contamination import contamination
    from proxy_models.text.token_shard import TokenShard
    from proxy_models.text.tokenizer import load_tokenizer

    names = {task.identity: task.name for task in tasks}
    examples = {task.identity: examples_of(task) for task in tasks}
    opened = {name: TokenShard.open(Path(local_artifact(place))) for name, place in shards.items()}
    found = contamination(examples, opened, load_tokenizer(local_artifact(tokenizer)))
    return {identity: {"task": names[identity], **asdict(told)} for identity, told in found.items()}


def _examples(text: SharedText, directory: Path, tokenizer: "TextTokenizer | None") -> list[str]:
    """The beginnings of some of the documents; none where the domain's tokens are on another machine."""
    from proxy_models.text.token_shard import META, TokenShard
    from proxy_models.text.tokenizer import example_text

    if tokenizer is None or not (directory / META).exists():
        return []
    tokens = TokenShard.open(directory).tokens
    return [example_text(tokenizer, tokens, begin, length) for begin, length in text.begins]


def store(session: Session, job: Job, result: Document) -> None:
    """Note it with the revision, and what was counted again with its domain."""
    revision, recounted = session.get_one(Revision, job.subject), result.pop("recounted", {})
    revision.shared_text = {**(asked_of(asked_tasks(revision)) or {}), **result}
    for row in revision.domains:
        if row.name in recounted:
            prepare_domain.fill_in(row, recounted[row.name])
