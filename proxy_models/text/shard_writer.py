"""Writes a shard: documents in, training tokens on one side and held-out documents on the other."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from math import inf
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import numpy as np

from proxy_models.errors import CorpusError, InvalidSpec, TooLittleText
from proxy_models.storage import write_json
from proxy_models.stores.object_path import DataPath
from proxy_models.text.corpus import byte_limits, documents_of, up_to
from proxy_models.text.data_roots import Digests
from proxy_models.text.document_index import HELD_OUT as NEVER_TRAINED
from proxy_models.text.document_index import IndexWriter, SeenDocuments
from proxy_models.text.formats.catalogue import format_of
from proxy_models.text.formats.opened import Faults, opened
from proxy_models.text.held_out import (
    MINIMUM_BYTES,
    ContentKey,
    EvaluationSlice,
    HeldOutSplit,
    beginning,
    document_digest,
    held_out_split,
)
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.token_files import TokenReader
from proxy_models.text.token_shard import HELD_OUT, META, TOKENS, ShardMeta, smallest_dtype
from proxy_models.text.tokenizer import TextTokenizer, check_lossless, example_text


@dataclass(frozen=True)
class PreparationSpec:
    """What to prepare.

    ``directory`` is where all shards live. ``held_out_fraction`` must be the same for all domains trained together,
    or a duplicate may be held out in one and trained on in another. ``evaluation_bytes`` is about how much of the
    held-out side is evaluated. ``without`` are the rising 64-bit digests of documents that are left out, where copies
    are dropped.
    """

    domain: str
    files: tuple[DataPath, ...]
    tokenizer: TextTokenizer
    directory: Path
    held_out_fraction: float = 0.02
    evaluation_bytes: int = 2**16
    minimum_held_out_bytes: int = MINIMUM_BYTES
    reading: Reading = BY_CONTENT
    without: np.ndarray | None = None

    @property
    def said(self) -> list[object]:
        """What is said beside the split, as a part of the names of what is made."""
        left_out = [] if self.without is None else [hashlib.sha256(self.without.tobytes()).hexdigest()]
        return [*([self.reading.said] if self.reading.said else []), *left_out]

    def __post_init__(self) -> None:
        if not 0 < self.held_out_fraction < 1:
            raise InvalidSpec(
                f"held_out_fraction must lie between 0 and 1, not {self.held_out_fraction}",
                "held_out_fraction",
            )


@dataclass(frozen=True)
class PreparationProgress:
    """Bytes of the files read so far, of their total."""

    done: int
    total: int

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"done": self.done, "total": self.total, "unit": "bytes"}


BATCH_CHARACTERS = 2**20
LAYOUT = 2
"""Part of every shard's key; raise it when the content of a shard directory changes."""


def check_trainable(spec: PreparationSpec, meta: ShardMeta) -> None:
    """Raise `TooLittleText` where nothing is left to train on."""
    if meta.tokens < 2 and spec.without is not None:
        raise TooLittleText(
            spec.domain,
            "what it has is in other domains too and is left to them (copies: drop_shared), so nothing is left to"
            " train on; leave the domain out, or keep its copies",
        )
    if meta.tokens < 2:
        raise TooLittleText(
            spec.domain,
            "nothing is left to train on beside its held-out slice; add text to it, or make it a part of another "
            "domain",
        )


@dataclass
class _Writer:
    """Takes documents, batches them for the tokenizer and counts."""

    spec: PreparationSpec
    split: HeldOutSplit
    stream: IO[bytes]
    evaluation: EvaluationSlice
    dtype: np.dtype[np.unsignedinteger]
    index: IndexWriter
    waiting: list[tuple[str, bytes | None]] = field(default_factory=list)
    characters: int = 0
    documents: int = 0
    size_bytes: int = 0
    tokens: int = 0
    held_out_documents: int = 0
    held_out_bytes: int = 0
    held_out_tokens: int = 0
    content: ContentKey = field(default_factory=ContentKey)

    def add(self, text: str, ids: Sequence[int] | None = None) -> None:
        """Count a document and send its parts to their sides; ``ids`` where the file brought them."""
        digest = document_digest(text)
        held_out, trained = self.split.divide(digest, text)
        self.content.add(digest)
        self.documents += 1
        self.size_bytes += len(text.encode())
        cut = None if ids is None else len(ids) * len(held_out) // len(text)
        if held_out:
            held_ids = None if ids is None else list(ids[:cut])
            self.held_out_documents += 1
            self.held_out_bytes += len(held_out.encode())
            self.evaluation.add(digest, held_out, held_ids)
            self.send(held_out, None, held_ids)
        if trained:
            self.send(trained, digest, None if ids is None else ids[cut:])
        else:
            self.index.add(digest, NEVER_TRAINED, 0)

    def send(self, text: str, digest: bytes | None, ids: Sequence[int] | None) -> None:
        """Write a part that has ids; one that has none waits to be tokenized. A held-out part has no ``digest``."""
        if ids is not None:
            self.write(ids, digest)
            return
        self.waiting.append((text, digest))
        self.characters += len(text)
        if self.characters >= BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Tokenize and write what waits."""
        for (_, digest), ids in zip(
            self.waiting, self.spec.tokenizer.encode_batch([text for text, _ in self.waiting]), strict=True
        ):
            self.write(ids, digest)
        self.waiting, self.characters = [], 0

    def write(self, ids: Sequence[int], digest: bytes | None) -> None:
        """Append a training document and its end-of-text; only count a held-out one."""
        if digest is None:
            self.held_out_tokens += len(ids)
            return
        row = np.empty(len(ids) + 1, self.dtype)
        row[:-1] = ids
        row[-1] = self.spec.tokenizer.end_of_text
        self.stream.write(row.tobytes())
        self.index.add(digest, self.tokens, len(row))
        self.tokens += len(row)


def write_shard(
    spec: PreparationSpec, directory: Path, progress: Callable[[PreparationProgress], None]
) -> ShardMeta:
    """Read the files of ``spec`` once, split and tokenize them into ``directory``; the counts have the key it is due.

    Raises `CorpusError`, `TooLittleText`, `StorageFailed`.
    """
    tokenizer, dtype = spec.tokenizer, smallest_dtype(spec.tokenizer.vocabulary_size)
    files: list[tuple[str, str]] = []
    faults = Faults()
    dropping = _Dropping(spec)
    documents = dropping.of(_documents(spec, files, faults, progress))
    with (
        (directory / TOKENS).open("wb") as stream,
        SpooledTemporaryFile(BATCH_CHARACTERS, "w+", dir=str(directory)) as begun,
    ):
        split = held_out_split(_kept(documents, begun), spec.held_out_fraction, spec.minimum_held_out_bytes)
        begun.seek(0)
        evaluated, index = EvaluationSlice(spec.evaluation_bytes), IndexWriter(directory)
        writer = _Writer(spec, split, stream, evaluated, dtype, index)
        for text, ids in chain(map(json.loads, begun), documents):
            writer.add(text, ids)
        writer.flush()
    evaluation = _write_held_out(tokenizer, writer.evaluation, directory / HELD_OUT)
    meta = ShardMeta(
        key=_key(spec, files),
        tokenizer=tokenizer.fingerprint,
        vocabulary_size=tokenizer.vocabulary_size,
        end_of_text=tokenizer.end_of_text,
        dtype=dtype.str,
        documents=writer.documents,
        size_bytes=writer.size_bytes,
        tokens=writer.tokens,
        held_out_documents=writer.held_out_documents,
        held_out_bytes=writer.held_out_bytes,
        held_out_tokens=writer.held_out_tokens,
        evaluation_documents=len(evaluation),
        evaluation_bytes=sum(size for size, _ in evaluation),
        evaluation_tokens=sum(count for _, count in evaluation),
        content=writer.content.hexadecimal,
        findings={**_findings(spec, writer, directory, faults), "dropped_documents": dropping.dropped},
    )
    check_trainable(spec, meta)
    write_json(directory / META, asdict(meta))
    return meta


def _findings(spec: PreparationSpec, writer: _Writer, directory: Path, faults: Faults) -> dict[str, object]:
    """What there is to know about the text beside its counts: copies, what the tokenizer loses, lines passed over."""
    repeated = writer.index.write()
    tokens = np.memmap(directory / TOKENS, writer.dtype, mode="r") if writer.tokens else ()
    return {
        "unique_tokens": writer.tokens - repeated.tokens,
        "repeated_documents": repeated.documents,
        "repeated": [
            {
                "copies": int(record["copies"]),
                "text": None
                if record["begin"] == NEVER_TRAINED
                else example_text(spec.tokenizer, tokens, int(record["begin"]), int(record["tokens"])),
            }
            for record in repeated.most
        ],
        **_lost(spec, writer.evaluation),
        "bad_lines": {"lines": faults.lines, "first": str(faults.first)} if faults.lines else None,
    }


def _lost(spec: PreparationSpec, evaluation: EvaluationSlice) -> dict[str, float]:
    """Shares of the evaluated text that the tokenizer does not give back: of its characters, and of its spaces.

    Raises `TokenizerError` where it is so much of the characters that bits per byte would mean nothing.
    """
    tokenizer, lost, total, spaces = spec.tokenizer, 0, 0, np.zeros(2, np.int64)
    for _, (whole, ids) in evaluation.documents_by_digest():
        text = beginning(whole, evaluation.part_bytes)
        gone, size = tokenizer.lost(text) if ids is None else tokenizer.unknown_among(ids)
        lost, total = lost + gone, total + size
        spaces += tokenizer.lost_spaces(text) if ids is None else (0, 0)
    check_lossless(lost, total, f"of the text of domain {spec.domain!r}")
    return {"lost_characters": lost / max(1, total), "lost_spaces": float(spaces[0] / max(1, spaces[1]))}


def _key(spec: PreparationSpec, files: Sequence[tuple[str, str]]) -> str:
    """32 hexadecimal digits of the files' formats and digests, the tokenizer and the split; names play no part."""
    content = [LAYOUT, files, spec.tokenizer.fingerprint, spec.held_out_fraction, spec.evaluation_bytes]
    content += spec.said
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


Document = tuple[str, Sequence[int] | None]
"""A text, and its ids where the file holds ids: they are decoded, so that a text is split alike in every format."""


@dataclass
class _Dropping:
    """Passes on the documents that are not left to other domains nor were there before; counts those that are."""

    spec: PreparationSpec
    dropped: int = 0

    def of(self, documents: Iterator[Document]) -> Iterator[Document]:
        if self.spec.reading.copies == "keep":
            yield from documents
            return
        seen = SeenDocuments([] if self.spec.without is None else [self.spec.without])
        for text, ids in documents:
            if seen.is_new(document_digest(text)):
                yield text, ids
            else:
                self.dropped += 1


def _kept(documents: Iterable[Document], begun: IO[str]) -> Iterator[str]:
    """The texts; what is read until the split is known is kept, for the files are read once."""
    for document in documents:
        begun.write(json.dumps(document) + "\n")
        yield document[0]


def _documents(
    spec: PreparationSpec,
    files: list[tuple[str, str]],
    faults: Faults,
    progress: Callable[[PreparationProgress], None],
) -> Iterator[Document]:
    """Every document, in order; each file's format and digest are added to ``files``, its faults, when it is read."""
    documents = 0
    sizes = [path.stat().st_size for path in spec.files]
    total, before = sum(sizes), 0
    limits = byte_limits(spec.files, spec.reading)
    for path, size, limit in zip(spec.files, sizes, limits, strict=True):
        read = reported = 0
        whole = _documents_of(path, spec, files, faults)
        for text, ids in whole if limit == inf else _sample_of(path, spec, files, faults, limit):
            yield text, ids
            documents += 1
            read += len(text.encode())
            done = min(size, read)  # compressed files run ahead, and wait at their end
            if done - reported >= BATCH_CHARACTERS:
                reported = done
                progress(PreparationProgress(before + done, total))
        before += size
        progress(PreparationProgress(before, total))
    faults.check(documents, spec.reading)
    if not files:
        raise CorpusError(spec.files[0], None, "holds no text")


def _sample_of(
    path: DataPath, spec: PreparationSpec, files: list[tuple[str, str]], faults: Faults, limit: float
) -> Iterator[Document]:
    """The first documents of a file, which is not read to its end: what stands for its content is what was read."""
    digest, documents = hashlib.sha256(), 0
    for text, ids in up_to(_documents_of(path, spec, [], faults), limit):
        digest.update(len(text).to_bytes(8, "big") + text.encode())
        documents += 1
        yield text, ids
    if documents:
        files.append(("sample", digest.hexdigest()))


def _documents_of(
    path: DataPath, spec: PreparationSpec, files: list[tuple[str, str]], faults: Faults
) -> Iterator[Document]:
    tokenizer, documents = spec.tokenizer, 0
    digests: Digests = {}
    with opened(path, digests) as file:
        found = format_of(file, spec.reading)
        if found.layout is not None:
            reader = TokenReader(tokenizer.end_of_text, tokenizer.vocabulary_size, tokenizer.fingerprint)
            for ids in reader.documents(file, found.layout(file, tokenizer.vocabulary_size)):
                documents += 1
                yield tokenizer.decode(ids), ids.tolist()
        else:
            try:
                for text in documents_of(file, found, spec.reading):
                    documents += 1
                    yield text, None
            finally:  # a sample ends before the file does
                faults.add(file.faults)
        parts = [digests[one].digest() for one in sorted(digests, key=lambda one: one != path)]
        if documents:
            files.append((found.key(file), hashlib.sha256(b"".join(parts)).hexdigest()))


def _write_held_out(
    tokenizer: TextTokenizer, evaluation: EvaluationSlice, path: Path
) -> list[tuple[int, int]]:
    """Write the evaluated documents; returns (bytes, tokens) of each."""
    written = []
    with path.open("w", encoding="utf-8") as lines:
        for _, (whole, ids) in evaluation.documents_by_digest():
            text = beginning(whole, evaluation.part_bytes)
            if ids is None:
                tokens = tokenizer.encode(text)
            else:
                tokens = ids[: max(1, len(ids) * len(text) // len(whole))]
                text = tokenizer.decode(tokens)
            size = len(text.encode())
            if not size:
                continue
            lines.write(json.dumps({"text": text, "bytes": size, "tokens": tokens}) + "\n")
            written.append((size, len(tokens)))
    return written
