"""A shard's training tokens as the files of a trainer: documents in an order of their own, one file a domain.

- ``olmo-core``: ids without a header, in the shard's type (OLMo-core reads it from its configuration). It takes a
  file's beginning and draws nothing, so the order has to be random already.
- ``megatron``: ``.bin`` and the ``.idx`` of `megatron/core/datasets/indexed_dataset.py`. It has no uint32: ids over
  65,535 are int32.

Every document ends with the tokenizer's end-of-text id, as in the shard. The sidecar that `token_files` reads lies
beside each, so whoever gives the files to a domain set is held to their tokenizer.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from proxy_models.storage import write_json
from proxy_models.text.token_files import MEGATRON_INDEX
from proxy_models.text.token_shard import TokenShard

LAYOUTS = ("olmo-core", "megatron")
_BLOCK = 2**22
"""Tokens looked at or gathered at once."""
_MEGATRON_CODES = {"<u2": 8, "<i4": 4}


@dataclass(frozen=True)
class WrittenTokens:
    """A domain's file: its path as the trainer is told it, and what is in it."""

    path: str
    tokens: int
    documents: int


def write_tokens(
    shard: TokenShard,
    target: Path,
    layout: str,
    seed: int | None = 0,
    progress: Callable[[int], None] = lambda tokens: None,
) -> WrittenTokens:
    """Write a shard's training tokens; what was written whole before, of the same shard and seed, is left as it is.

    Args:
        shard: of the domain.
        target: without a suffix; its folder is made.
        layout: one of `LAYOUTS`.
        seed: of the documents' order; None for that of the shard.
        progress: is told the tokens written now and then.

    Raises:
        ValueError: no such layout.
        OSError: as writing does; what is half written is written again the next time.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r} of token files; there are {', '.join(LAYOUTS)}")
    suffix = ".bin" if layout == "megatron" else ".npy"
    data = target.with_name(f"{target.name}{suffix}")
    note = data.with_name(f"{data.name}.json")
    path = str(target if layout == "megatron" else data)
    starts, ends = document_bounds(shard)
    dtype = _dtype(shard, layout)
    said = {
        "dtype": dtype.name,
        "tokenizer": shard.meta.tokenizer,
        "end_of_text": shard.meta.end_of_text,
        "tokens": shard.meta.tokens,
        "documents": len(ends),
        "shard": shard.meta.key,
        "seed": seed,
    }
    written = WrittenTokens(path, shard.meta.tokens, len(ends))
    if note.exists() and _is_whole(data, note, said, shard.meta.tokens * dtype.itemsize):
        progress(shard.meta.tokens)
        return written
    target.parent.mkdir(parents=True, exist_ok=True)
    order = np.arange(len(ends)) if seed is None else np.random.default_rng(seed).permutation(len(ends))
    draft = data.with_name(f"{data.name}.partial")
    with draft.open("wb") as file:
        done = 0
        for block in _blocks(shard, starts[order], ends[order]):
            _write(file, block.astype(dtype, copy=False))
            done += len(block)
            progress(done)
    if layout == "megatron":
        _write_index(target.with_name(f"{target.name}.idx"), (ends - starts)[order], dtype)
    draft.replace(data)
    write_json(note, said)
    return written


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


def _write(file: IO[bytes], block: np.ndarray) -> None:
    file.write(np.ascontiguousarray(block).data)


def _dtype(shard: TokenShard, layout: str) -> np.dtype:
    own = np.dtype(shard.meta.dtype)
    return np.dtype("<i4") if layout == "megatron" and own.itemsize > 2 else own


def _write_index(path: Path, lengths: np.ndarray, dtype: np.dtype) -> None:
    """Magic, u64 version, u8 type, u64 sequences, u64 documents + 1, i32 lengths, i64 offsets, i64 documents."""
    count = len(lengths)
    offsets = np.zeros(count, np.int64)
    np.cumsum(lengths[:-1] * dtype.itemsize, out=offsets[1:])
    with path.open("wb") as file:
        file.write(MEGATRON_INDEX)
        file.write(np.array([1], "<u8").tobytes())
        file.write(np.array([_MEGATRON_CODES[dtype.str]], "u1").tobytes())
        file.write(np.array([count, count + 1], "<u8").tobytes())
        file.write(lengths.astype("<i4").tobytes())
        file.write(offsets.astype("<i8").tobytes())
        file.write(np.arange(count + 1, dtype="<i8").tobytes())


def _is_whole(data: Path, note: Path, said: dict[str, object], size_bytes: int) -> bool:
    try:
        return json.loads(note.read_text(encoding="utf-8")) == said and data.stat().st_size == size_bytes
    except (OSError, ValueError):
        return False
