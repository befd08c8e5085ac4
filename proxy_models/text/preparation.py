"""From a domain's files to token shards: read, split, tokenize, write once, reuse by content."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from proxy_models.errors import CorpusError, DataMissing, TooLittleText
from proxy_models.storage import storage_errors, write_json
from proxy_models.stores.current import current_store
from proxy_models.stores.object_path import DataPath
from proxy_models.text.corpus import plain_suffix, read_documents
from proxy_models.text.data_roots import open_data
from proxy_models.text.held_out import document_digest, held_out_split
from proxy_models.text.shard_writer import (
    PreparationProgress,
    PreparationSpec,
    check_held_out,
    key_of_content,
    write_shard,
)
from proxy_models.text.token_files import is_pretokenized
from proxy_models.text.token_shard import META, ShardMeta, TokenShard

__all__ = [
    "PreparationProgress",
    "PreparationSpec",
    "PreparedDomain",
    "prepare_domain",
    "shard_key",
    "training_sample",
]

LAYOUT = 1
"""Part of every shard's key; raise it when the content of a shard directory changes."""


@dataclass(frozen=True)
class PreparedDomain:
    """A domain's shard directory and counts; ``reused`` where nothing had to be written."""

    domain: str
    directory: Path
    meta: ShardMeta
    reused: bool

    def to_dict(self) -> dict[str, object]:
        """For JSON: the counts, ``domain``, ``directory`` and ``reused``."""
        return {
            **self.meta.to_dict(),
            "domain": self.domain,
            "directory": str(self.directory),
            "reused": self.reused,
        }


def _ignore(progress: PreparationProgress) -> None:
    pass


def prepare_domain(
    spec: PreparationSpec, progress: Callable[[PreparationProgress], None] = _ignore
) -> PreparedDomain:
    """Write the shard of a domain, or find the one of the same files, tokenizer and split.

    Raises `CorpusError` (file and line), `TooLittleText` naming the domain, `StorageFailed`. Safe to kill and to run
    twice at once: a lock lets one writer in, and a shard takes its name when it is whole.
    """
    if not spec.files:
        raise TooLittleText(spec.domain, "it has no files")
    key = shard_key(spec)
    directory = spec.directory / key
    with _locked(spec.directory / f".{key}.lock"):
        meta = _existing(directory) or _published(directory)
        if reused := meta is not None:
            check_held_out(spec, meta)
            if (
                meta.content is None
            ):  # written before the content was noted; the tokens need not be made again
                meta = replace(meta, content=key_of_content(spec))
                if directory.is_dir():
                    write_json(directory / META, meta.to_dict())
        else:
            meta = write_shard(spec, key, directory, progress)
    total = sum(path.stat().st_size for path in spec.files)
    progress(PreparationProgress(total, total))
    return PreparedDomain(spec.domain, directory, meta, reused)


def _existing(directory: Path) -> ShardMeta | None:
    """The counts of a shard that is there and whole; a damaged one is written again."""
    try:
        return TokenShard.open(directory).meta
    except DataMissing:
        return None


def _published(directory: Path) -> ShardMeta | None:
    """The counts of a shard that another machine has made: its tokens are not needed to know that it is there."""
    store = current_store()
    content = None if store is None else store.read_file(directory, META)
    return None if content is None else ShardMeta.from_json(content)


def shard_key(spec: PreparationSpec) -> str:
    """32 hexadecimal digits of the files' content and formats, the tokenizer and the split; names play no part."""
    files = [(plain_suffix(path), _file_digest(path)) for path in spec.files]
    content = [LAYOUT, files, spec.tokenizer.fingerprint, spec.held_out_fraction, spec.evaluation_bytes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _file_digest(path: DataPath) -> str:
    digest = hashlib.sha256()
    try:
        for file in (path, path.with_name(path.name + ".json")):  # the sidecar of pre-tokenized files
            if file == path or (is_pretokenized(path) and file.exists()):
                with open_data(file) as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    except OSError as error:
        raise CorpusError(path, None, f"cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("wb")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back when the process dies
        yield


def training_sample(files: Sequence[DataPath], fraction: float, byte_limit: int) -> Iterator[str]:
    """Training-side documents to train a tokenizer on: up to ``byte_limit`` bytes, spread evenly over the files.

    What a held-out ``fraction`` of them keeps back (`held_out_split`) is left out: the files are those of one domain.
    Pre-tokenized files have no say. The order and the choice depend on the files alone.
    """
    texts = [path for path in files if not is_pretokenized(path)]
    split = held_out_split((text for path in texts for text in read_documents(path)), fraction)
    remaining = byte_limit
    for index, path in enumerate(texts):
        share = remaining / (len(texts) - index)
        for text in read_documents(path):
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
