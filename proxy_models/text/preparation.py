"""From a domain's files to token shards: read, split, tokenize, write once, reuse by content."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from proxy_models.errors import CorpusError, DataMissing, TooLittleText
from proxy_models.storage import (
    locked,
    name_directory,
    unnamed_directory,
    write_atomically,
    write_json,
)
from proxy_models.stores.current import current_store, is_here, reference_of
from proxy_models.stores.object_path import DataPath, FileIdentity, file_identity
from proxy_models.text.corpus import byte_limits, holds_text, read_documents, up_to
from proxy_models.text.held_out import document_digest, held_out_split
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.shard_writer import (
    LAYOUT,
    PreparationProgress,
    PreparationSpec,
    check_trainable,
    write_shard,
)
from proxy_models.text.token_files import beside
from proxy_models.text.token_shard import META, ShardMeta, TokenShard


@dataclass(frozen=True)
class PreparedDomain:
    """A domain's shard directory and counts; ``reused`` where nothing had to be written."""

    directory: Path
    meta: ShardMeta
    reused: bool


def _ignore(progress: PreparationProgress) -> None:
    pass


def prepare_domain(
    spec: PreparationSpec, progress: Callable[[PreparationProgress], None] = _ignore
) -> PreparedDomain:
    """Write the shard of a domain, or find the one of the same files, tokenizer and split.

    A shard is named after the content of its files, which is known when they are read; so each is read once, and what
    was written is thrown away where the shard is there already. Files that are, by size and time, those of an earlier
    preparation are not read at all.

    Raises `CorpusError` (file and line), `TooLittleText` naming the domain, `StorageFailed`. Safe to kill and to run
    twice at once: a lock lets one writer in, and a shard takes its name when it is whole.
    """
    if not spec.files:
        raise TooLittleText(spec.domain, "it has no files")
    name, total = _sources(spec)
    note = spec.directory / f"{name}.key"
    with locked(spec.directory / f".{name}.lock"):
        meta = _find(spec.directory / note.read_text("utf-8")) if is_here(note) else None
        reused = meta is not None and meta.content is not None
        if meta is None or meta.content is None:
            meta, reused = _prepare(spec, name, progress)
            write_atomically(note, meta.key.encode())
            reference_of(note)
    check_trainable(spec, meta)
    progress(PreparationProgress(total, total))
    return PreparedDomain(spec.directory / meta.key, meta, reused)


def _prepare(
    spec: PreparationSpec, name: str, progress: Callable[[PreparationProgress], None]
) -> tuple[ShardMeta, bool]:
    """Write the shard; where there is one of its content, keep that."""
    with unnamed_directory(spec.directory / name) as temporary:
        meta = write_shard(spec, temporary, progress)
        directory = spec.directory / meta.key
        with locked(spec.directory / f".{meta.key}.lock"):
            existing = _find(directory)
            if existing is None:
                name_directory(temporary, directory)
                return meta, False
            if existing.content is None:  # written before the content was noted
                existing = replace(existing, content=meta.content)
                if directory.is_dir():
                    write_json(directory / META, asdict(existing))
            return existing, True


def _find(directory: Path) -> ShardMeta | None:
    """The counts of a shard that is here and whole, or in the store: another machine's need not be fetched for them.

    A damaged one is written again.
    """
    try:
        return TokenShard.open(directory).meta
    except DataMissing:
        store = current_store()
        content = None if store is None else store.read_file(directory, META)
        return None if content is None else ShardMeta.from_json(content)


def _sources(spec: PreparationSpec) -> tuple[str, int]:
    """A name for what is prepared from the files as they are now, by path, size and time; and their bytes."""
    files = [_identity(path) for path in spec.files]
    notes = [_identity(note) for path in spec.files for note in beside(path) if note.exists()]
    split = [spec.held_out_fraction, spec.evaluation_bytes, spec.minimum_held_out_bytes]
    split += spec.said
    content = json.dumps([LAYOUT, files, notes, spec.tokenizer.fingerprint, split])
    return hashlib.sha256(content.encode()).hexdigest()[:32], sum(size for _, size, _ in files)


def _identity(path: DataPath) -> FileIdentity:
    try:
        return file_identity(path)
    except OSError as error:
        raise CorpusError(path, None, f"cannot be read: {error.strerror or error}") from error


def training_sample(
    files: Sequence[DataPath], fraction: float, byte_limit: int, reading: Reading = BY_CONTENT
) -> Iterator[str]:
    """Training-side documents to train a tokenizer on: up to ``byte_limit`` bytes, spread evenly over the files.

    What a held-out ``fraction`` of them keeps back (`held_out_split`) is left out: the files are those of one domain.
    Token ids have no say. The order and the choice depend on the files alone.
    """
    fraction = reading.held_out_fraction or fraction
    limits = zip(files, byte_limits(files, reading), strict=True)
    texts = [(path, limit) for path, limit in limits if holds_text(path, reading)]

    def documents(path: DataPath, limit: float) -> Iterator[str]:
        return up_to(read_documents(path, reading=reading), limit)

    split = held_out_split((text for place in texts for text in documents(*place)), fraction)
    remaining = byte_limit
    for index, place in enumerate(texts):
        share = remaining / (len(texts) - index)
        for text in documents(*place):
            _, trained = split.divide(document_digest(text), text)
            if not trained:
                continue
            yield trained
            size = len(trained.encode())
            share -= size
            remaining -= size
            if share <= 0:
                break
        if remaining <= 0:
            return
