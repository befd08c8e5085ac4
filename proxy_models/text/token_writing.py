"""A shard's training tokens as the files of a trainer: documents in an order of their own, a directory a domain.

OLMo-core takes a file's beginning and draws nothing, and no trainer shuffles more than rows: so the documents' order
is random already. Every document ends with the tokenizer's end-of-text id, as in the shard.

With the files lies a note of what they are. Beside OLMo-core's and Megatron's it is the sidecar that `token_files`
reads, so whoever gives the files to a domain set is held to their tokenizer.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from proxy_models.errors import DataMissing, StorageFailed
from proxy_models.storage import new_directory
from proxy_models.text.token_layouts import BLOCK, LAYOUTS, Layout
from proxy_models.text.token_shard import TokenShard


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
        with new_directory(directory) as draft, ThreadPoolExecutor(1) as background:
            files, done = layout(draft, own, order.length, background), 0
            for pieces in _tokens(shard, (starts, ends), _places(len(ends), order.seed), total):
                files.add(pieces)
                progress(done := done + sum(map(len, pieces)))
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
) -> Iterator[list[np.ndarray]]:
    """So many tokens, in pieces of `BLOCK` at most; the documents once more where they have fewer."""
    starts, ends = bounds
    while total > 0:
        order = next(places)
        for pieces, number in _blocks(shard, starts[order], ends[order]):
            if number >= total:
                yield [np.concatenate(pieces)[:total]]
                return
            yield pieces
            total -= number


def document_bounds(shard: TokenShard) -> tuple[np.ndarray, np.ndarray]:
    """(n,) first tokens and (n,) ends of the documents, the end-of-text id included."""
    found = [
        begin + np.flatnonzero(shard.tokens[begin : begin + BLOCK] == shard.meta.end_of_text)
        for begin in range(0, shard.meta.tokens, BLOCK)
    ]
    ends = np.concatenate(found) + 1 if found else np.zeros(0, np.int64)
    if shard.meta.tokens and (not len(ends) or ends[-1] != shard.meta.tokens):
        ends = np.append(ends, shard.meta.tokens)
    return np.concatenate([[0], ends[:-1]]).astype(np.int64), ends.astype(np.int64)


def _blocks(
    shard: TokenShard, starts: np.ndarray, ends: np.ndarray
) -> Iterator[tuple[list[np.ndarray], int]]:
    """The documents one after the other, in pieces that are about `BLOCK` tokens together, and how many they are."""
    tokens = shard.tokens.view(np.ndarray)  # slices of a mapping's own class take twice as long
    total = np.concatenate([[0], np.cumsum(ends - starts)])
    begin = 0
    while begin < len(starts):
        end = int(np.searchsorted(total, total[begin] + BLOCK, side="right")) - 1
        if end == begin:  # a long document
            for first in range(int(starts[begin]), int(ends[begin]), BLOCK):
                piece = tokens[first : min(first + BLOCK, int(ends[begin]))]
                yield [piece], len(piece)
            end = begin + 1
        else:
            pairs = zip(starts[begin:end].tolist(), ends[begin:end].tolist(), strict=True)
            yield [tokens[first:last] for first, last in pairs], int(total[end] - total[begin])
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
