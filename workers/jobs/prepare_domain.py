"""Counting a domain, splitting off its held-out slice, and writing its token shard."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_models.stores.current import local_artifact, reference_of, using_store
from proxy_models.stores.object_path import data_path
from proxy_models.text.reading import Reading
from store import jobs
from store.settings import Settings
from store.tables import Document, DomainRow, Job, Revision

if TYPE_CHECKING:
    import numpy as np


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The domain's files and the revision's tokenizer and split."""
    return order(session.get_one(DomainRow, job.subject), settings)


def order(row: DomainRow, settings: Settings) -> Document:
    """What `execute` is told of a domain."""
    return {
        "domain": row.name,
        "files": row.files,
        "reading": row.reading,
        "tokenizer": row.revision.tokenizer_path,
        "held_out_fraction": row.revision.held_out_fraction,
        "evaluation_bytes": row.revision.evaluation_bytes,
        "directory": str(settings.artifacts / "shards"),
        **settings.store_order,
    }


def execute(
    spec: Document, report: Callable[[Document], None], without: "np.ndarray | None" = None
) -> Document:
    """Write the shard, ``without`` documents of these digests, or find the one written from the same content."""
    from proxy_models.text.preparation import prepare_domain
    from proxy_models.text.shard_writer import PreparationSpec
    from proxy_models.text.token_shard import sample_of
    from proxy_models.text.tokenizer import load_tokenizer

    directory, reading = Path(spec["directory"]), Reading.of(spec.get("reading"))
    directory.mkdir(parents=True, exist_ok=True)
    with using_store(spec.get("artifact_store")):
        prepared = prepare_domain(
            PreparationSpec(
                domain=spec["domain"],
                files=tuple(data_path(path) for path in spec["files"]),
                tokenizer=load_tokenizer(local_artifact(spec["tokenizer"])),
                directory=directory,
                held_out_fraction=reading.held_out_fraction or spec["held_out_fraction"],
                evaluation_bytes=spec["evaluation_bytes"],
                reading=reading,
                without=without,
            ),
            lambda progress: report(progress.to_dict()),
        )
        directory = reference_of(prepared.directory)
        return {**asdict(prepared.meta), "directory": directory, "sample": sample_of(prepared.directory)}


def _content(content: str | None, reading: Document | None) -> str | None:
    """Which text it is; of a fraction of its own also that, for its held-out slice is another."""
    fraction = Reading.of(reading).held_out_fraction
    if content is None or fraction is None:
        return content
    return hashlib.sha256(f"{content} {fraction}".encode()).hexdigest()


def store(session: Session, job: Job, result: Document) -> None:
    """Fill in the domain's counts; whoever counts the last domain queues what compares them."""
    row = session.get_one(DomainRow, job.subject)
    fill_in(row, result)
    # The lock is so that there is a last one.
    session.execute(select(Revision.id).where(Revision.id == row.revision_id).with_for_update())
    waiting = select(DomainRow.id).where(
        DomainRow.revision_id == row.revision_id, DomainRow.id != row.id, DomainRow.counted_tokens.is_(None)
    )
    if session.scalar(waiting.limit(1)) is None:
        session.add(jobs.new_job(jobs.COMPARE_DOMAINS, row.revision_id, row.revision_id))


def fill_in(row: DomainRow, result: Document) -> None:
    """Note what `execute` counted."""
    row.counted_tokens = result["tokens"]
    row.counted_bytes = result["size_bytes"]
    row.documents = result["documents"]
    row.held_out_bytes = result["held_out_bytes"]
    row.content_hash = _content(result["content"], row.reading)
    row.shard_directory = result["directory"]
    row.sample = result.get("sample")
    beside = {name: result[name] for name in ("held_out_documents", "held_out_tokens")}
    row.findings = {**(result.get("findings") or {}), **beside}
