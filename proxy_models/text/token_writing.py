"""A shard's training tokens as the files of a trainer: documents in an order of their own, a directory a domain.

OLMo-core takes a file's beginning and draws nothing, and no trainer shuffles more than rows: so the documents' order
is random already. Every document ends with the tokenizer's end-of-text id, as in the shard.

With the files lies a note of what they are. Beside OLMo-core's and Megatron's it is the sidecar that `token_files`
reads, so whoever gives the files to a domain set is held to their tokenizer.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxy_models.errors import DataMissing, StorageFailed
from proxy_models.storage import new_directory
from proxy_models.text.token_layouts import LAYOUTS, Layout
from proxy_models.text.token_shard import TokenShard

_BLOCK = 2**22
"""Tokens looked at or gathered at once."""


@dataclass(frozen=True)
class WrittenTokens:
    """A domain's files: their path as the trainer is told it, and what is in them."""

    path: str
    tokens: int
    documents: int


@dataclass(frozen=True)
class Order:
    """How files are wanted.

    Attributes:
        layout: one of `LAYOUTS`.
        length: tokens of a row, of the layouts that cut them.
        rows: to be written, of the layouts that repeat; None for the shard once.
        seed: of the documents' order; None for that of the shard.
    """

    layout: str
    length: int = 1
    rows: int | None = None
    seed: int | None = 0


def write_tokens(
    shard: TokenShard,
    directory: Path,
    order: Order,
    progress: Callable[[int], None] = lambda tokens: None,
) -> WrittenTokens:
    """Write a shard's training tokens; what was written whole before, of the same shard and order, is left as it is.

    Args:
        shard: of the domain.
        directory: that the files fill, and nothing else.
        order: how they are wanted.
        progress: is told the tokens written now and then.

    Raises:
        ValueError: no such layout.
        DataMissing: a shard of no tokens that is to be repeated.
        StorageFailed: too little space, or what writing says; nothing half written stays.
    """
    if order.layout not in LAYOUTS:
        raise ValueError(
            f"there is no layout {order.layout!r} of token files; there are {', '.join(LAYOUTS)}"
        )
    layout, own = LAYOUTS[order.layout], np.dtype(shard.meta.dtype)
    starts, ends = document_bounds(shard)
    total = shard.meta.tokens if order.rows is None else order.rows * order.length
    if total and not len(ends):
        raise DataMissing(shard.directory, "has no tokens to be repeated")
    said = {
        "dtype": layout.dtype_of(own).name,
        "tokenizer": shard.meta.tokenizer,
        "end_of_text": shard.meta.end_of_text,
        "tokens": total // order.length * order.length if layout.has_rows else total,
        "documents": len(ends),
        "shard": shard.meta.key,
        "seed": order.seed,
        **({"sequence_length": order.length} if layout.has_rows else {}),
    }
    if not _is_whole(directory, layout, said):
        _check_space(directory, total * layout.dtype_of(own).itemsize)
        with new_directory(directory) as draft:
            files = layout(draft, own, order.length)
            _write(files, _tokens(shard, (starts, ends), _places(len(ends), order.seed), total), progress)
            files.close((ends - starts)[next(_places(len(ends), order.seed))])
            sizes = {file.name: file.stat().st_size for file in draft.iterdir()}
            noted = json.dumps({**said, "files": sizes}, indent=1, sort_keys=True)
            (draft / layout.sidecar).write_text(noted)
    progress(total)
    return WrittenTokens(str(directory / layout.told), said["tokens"], len(ends))


def _places(documents: int, seed: int | None) -> Iterator[np.ndarray]:
    """The documents' order in the shard's first reading, in its second, and so on."""
    generator = None if seed is None else np.random.default_rng(seed)
    while True:
        yield np.arange(documents) if generator is None else generator.permutation(documents)


def _tokens(
    shard: TokenShard,
    bounds: tuple[np.ndarray, np.ndarray],
    places: Iterator[np.ndarray],
    total: int,
) -> Iterator[np.ndarray]:
    """So many tokens, block by block; the documents once more where they have fewer."""
    starts, ends = bounds
    while total > 0:
        order = next(places)
        for block in _blocks(shard, starts[order], ends[order]):
            yield block[:total]
            total -= len(block)
            if total <= 0:
                return


def _write(files: Layout, blocks: Iterator[np.ndarray], progress: Callable[[int], None]) -> None:
    """One block is gathered while the one before is written."""
    done = 0
    with ThreadPoolExecutor(1) as pool:
        writing: Future[None] | None = None
        for block in blocks:
            if writing is not None:
                writing.result()
                progress(done)
            writing = pool.submit(files.add, block)
            done += len(block)
        if writing is not None:
            writing.result()


def document_bounds(shard: TokenShard) -> tuple[np.ndarray, np.ndarray]:
    """(n,) first tokens and (n,) ends of the documents, the end-of-text id included."""
    found = [
        begin + np.flatnonzero(shard.tokens[begin : begin + _BLOCK] == shard.meta.end_of_text)
        for begin in range(0, shard.meta.tokens, _BLOCK)
    ]
    ends = np.concatenate(found) + 1 if found else np.zeros(0, np.int64)
    if shard.meta.tokens and (not len(ends) or ends[-1] != shard.meta.tokens):
        ends = np.append(ends, shard.meta.tokens)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), ends.astype(np.int64)


def _blocks(shard: TokenShard, starts: np.ndarray, ends: np.ndarray) -> Iterator[np.ndarray]:
    """The documents one after the other, in arrays of about `_BLOCK` tokens."""
    tokens = shard.tokens.view(np.ndarray)  # slices of a mapping's own class take twice as long
    total = np.cumsum(ends - starts)
    begin = 0
    while begin < len(starts):
        before = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, before + _BLOCK)), begin + 1)
        pairs = zip(starts[begin:end].tolist(), ends[begin:end].tolist(), strict=True)
        yield np.concatenate([tokens[first:last] for first, last in pairs])
        begin = end


def _is_whole(directory: Path, layout: type[Layout], said: dict[str, Any]) -> bool:
    try:
        noted = json.loads((directory / layout.sidecar).read_text(encoding="utf-8"))
        sizes = noted.pop("files")
        return noted == said and all((directory / name).stat().st_size == sizes[name] for name in sizes)
    except (OSError, ValueError, AttributeError, KeyError):
        return False


def _check_space(directory: Path, size_bytes: int) -> None:
    place = next(parent for parent in directory.parents if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size_bytes:
        raise StorageFailed(
            directory, f"takes {size_bytes / 1e9:,.1f} GB, and its disk has {free / 1e9:,.1f} GB left"
        )
