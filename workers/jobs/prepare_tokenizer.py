"""The tokenizer of a revision: its ancestors', or trained on its domains, or a Hugging Face one.

Runs can be compared only where they read the same tokens, so a revision never trains a tokenizer beside its parent's.
One that was posted before its parent's tokenizer was there makes that very tokenizer, from the parent's files:
whoever comes first writes it, and the other finds it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_models.errors import CorpusError
from proxy_models.stores.current import is_here, local_artifact, reference_of, using_store
from proxy_models.stores.object_path import DataPath, data_path, file_identity
from store import jobs
from store.settings import Settings
from store.tables import FOUND, Document, Job, Revision
from workers.claims.failures import Failure, JobError

SAMPLE_BYTES = 5_000_000
"""Text a tokenizer is trained on, the same amount from every domain: a small one must not be spelled in bytes."""


def describe(session: Session, job: Job, settings: Settings) -> Document:
    """The domains' files, or the tokenizer that is there already."""
    revision = session.get_one(Revision, job.subject)
    source = _source(session, revision)
    existing = source.tokenizer_path or revision.tokenizer.get("huggingface")
    hub = None
    if existing and not source.tokenizer_path and not existing.startswith("/"):
        if not settings.allow_hub:
            raise JobError(
                "hub_not_allowed", f"{existing!r} is on the hub: set MIXWRIGHT_ALLOW_HUB for workers too"
            )
        hub, existing = {"name": existing, "revision": revision.tokenizer.get("revision")}, None
    return {
        "existing": existing,
        "hub": hub,
        "vocabulary_size": revision.tokenizer.get("vocabulary_size"),
        "files": {row.name: row.files for row in source.domains},
        "readings": {row.name: row.reading for row in source.domains if row.reading},
        "held_out_fraction": revision.held_out_fraction,
        "directory": str(settings.artifacts / "tokenizers"),
        **settings.store_order,
    }


def _source(session: Session, revision: Revision) -> Revision:
    """Whose tokenizer it is: the nearest that has one, else the oldest ancestor whose own can still be made.

    Where an ancestor failed to make its own it has no runs, so its successor begins anew.
    """
    source = revision
    while source.tokenizer_path is None and source.parent_id is not None:
        parent = session.get_one(Revision, source.parent_id)
        made = select(Job.state).where(Job.kind == jobs.PREPARE_TOKENIZER, Job.subject == parent.id)
        if parent.tokenizer_path is None and session.scalar(made) in (jobs.FAILED, jobs.CANCELLED, None):
            break
        source = parent
    return source


def execute(spec: Document, report: Callable[[Document], None]) -> Document:
    """Train the tokenizer, or fetch or load the one named to see that it can be used."""
    from proxy_models.text.tokenizer import fetch_tokenizer, load_tokenizer

    with using_store(spec.get("artifact_store")):
        fetched = (
            fetch_tokenizer(**spec["hub"], directory=Path(spec["directory"])) if spec.get("hub") else None
        )
        path = spec["existing"] or reference_of(fetched.directory if fetched else _train(spec))
        loaded = load_tokenizer(local_artifact(path))
        origin = None if fetched is None else {"commit": fetched.commit, "address": fetched.address}
        return {
            "path": path,
            "vocabulary_size": loaded.vocabulary_size,
            "fingerprint": loaded.fingerprint,
            "fetched": origin,
        }


def _train(spec: Document) -> Path:
    from proxy_models.text.preparation import training_sample
    from proxy_models.text.reading import Reading
    from proxy_models.text.tokenizer import train_byte_level_bpe

    readings = spec.get("readings", {})
    files = {name: [data_path(path) for path in spec["files"][name]] for name in sorted(spec["files"])}
    path = Path(spec["directory"]) / f"{_key(spec, files)}.json"
    if not is_here(path):
        share = SAMPLE_BYTES // len(files)
        sample = (
            text
            for name, paths in files.items()
            for text in _of_domain(
                name,
                training_sample(paths, spec["held_out_fraction"], share, Reading.of(readings.get(name))),
            )
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        train_byte_level_bpe(sample, spec["vocabulary_size"], path)
    return path


TOLD_BY_NAME = frozenset({".jsonl", ".ndjson", ".parquet", ".npy", ".bin"})
"""Suffixes of files that were read as they are before formats were told by content."""


def _key(spec: Document, files: dict[str, list[DataPath]]) -> str:
    """The tokenizer's name: equal for equal files, size and split, so that a second revision finds it."""
    from proxy_models.text.formats.opened import plain_suffix

    identity: Document = {
        "files": {name: list(_of_domain(name, map(file_identity, paths))) for name, paths in files.items()},
        "vocabulary_size": spec["vocabulary_size"],
        "held_out_fraction": spec["held_out_fraction"],
        "sample_bytes": SAMPLE_BYTES,
    }
    if spec.get("readings"):
        identity["readings"] = spec["readings"]
    if not {plain_suffix(path) for paths in files.values() for path in paths} <= TOLD_BY_NAME:
        identity["told"] = "by content"  # an older tokenizer of these files may be of JSON read as plain text
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _of_domain(name: str, parts: Iterable[Any]) -> Iterator[Any]:
    """What is read of a domain's files; what cannot be names the domain, which fails with it."""
    try:
        yield from parts
    except (CorpusError, FileNotFoundError, PermissionError) as error:
        code = Failure.of(error).code
        raise JobError(code, f"domain {name!r}: {error}") from error


def store(session: Session, job: Job, result: Document) -> None:
    """Note the tokenizer and queue the domains, which had to wait for it."""
    revision = session.get_one(Revision, job.subject)
    revision.tokenizer_path = result["path"]
    revision.vocabulary_size = result["vocabulary_size"]
    found = {name: result[name] for name in FOUND if result.get(name) is not None}
    revision.tokenizer = {**revision.tokenizer, **found}
    for position, row in enumerate(revision.domains):
        session.add(jobs.new_job(jobs.PREPARE_DOMAIN, row.id, revision.id, position, job.user_name))
