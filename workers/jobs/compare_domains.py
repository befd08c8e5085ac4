"""Finding the text that domains of a revision have in common, once all of them are counted."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from proxy_models.stores.current import local_artifact, one_file_each, using_store
from proxy_models.text.document_index import DOCUMENTS, SharedText, shared_texts
from store.settings import Settings
from store.tables import Document, Job, Revision

if TYPE_CHECKING:
    from proxy_models.text.tokenizer import TextTokenizer

MOST_SETS = 100
"""Sets of domains with text in common that are told of, those with the most of it."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The shards, which have their documents' digests, and the tokenizer, to show some of the text."""
    revision = session.get_one(Revision, job.subject)
    return {
        "shards": {row.name: row.shard_directory for row in revision.domains},
        "tokenizer": revision.tokenizer_path,
        **settings.store_order,
    }


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """What is held by several domains, and which of them could not be compared."""
    from proxy_models.text.tokenizer import load_tokenizer

    with using_store(spec.get("artifact_store")), one_file_each(spec["shards"], DOCUMENTS) as indexes:
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
            "not_compared": sorted(set(spec["shards"]) - set(indexes)),
        }


def _examples(text: SharedText, directory: Path, tokenizer: "TextTokenizer | None") -> list[str]:
    """The beginnings of some of the documents; none where the domain's tokens are on another machine."""
    from proxy_models.text.token_shard import META, TokenShard
    from proxy_models.text.tokenizer import example_text

    if tokenizer is None or not (directory / META).exists():
        return []
    tokens = TokenShard.open(directory).tokens
    return [example_text(tokenizer, tokens, begin, length) for begin, length in text.begins]


def store(session: Session, job: Job, result: Document) -> None:
    """Note it with the revision."""
    session.get_one(Revision, job.subject).shared_text = result
