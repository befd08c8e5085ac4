"""A prepared domain on disk: training tokens, held-out documents, counts. Free of torch.

A shard directory holds ``tokens.bin`` (little-endian uint16 or uint32, every document followed by end-of-text),
``held_out.jsonl`` (``{"text", "bytes", "tokens"}`` per document), ``documents.bin`` (`document_index`) and
``meta.json`` (`ShardMeta`).
"""

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from proxy_models.errors import DataMissing

TOKENS, HELD_OUT, META = "tokens.bin", "held_out.jsonl", "meta.json"


@dataclass(frozen=True)
class ShardMeta:
    """Counts of a shard.

    ``documents`` and ``size_bytes`` (UTF-8) are of the whole domain; ``tokens`` are the training tokens, end-of-text
    ids included; ``held_out_*`` is everything never trained on, of which ``evaluation_*`` is what gets evaluated.
    ``content`` says which text it is (`proxy_models.text.held_out`); None in a shard from before it was noted.
    ``findings`` is what else counting found (`shard_writer`), likewise.
    """

    key: str
    tokenizer: str
    vocabulary_size: int
    end_of_text: int
    dtype: str
    documents: int
    size_bytes: int
    tokens: int
    held_out_documents: int
    held_out_bytes: int
    held_out_tokens: int
    evaluation_documents: int
    evaluation_bytes: int
    evaluation_tokens: int
    content: str | None = None
    findings: dict[str, Any] | None = None

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardMeta":
        """What ``meta.json`` holds. Raises ValueError, KeyError or TypeError."""
        content = json.loads(text)
        noted = {name: content.get(name) for name in _NOTED_LATER}
        return cls(**{name: content[name] for name in _REQUIRED}, **noted)


_NOTED_LATER = ("content", "findings")
_REQUIRED = tuple(field.name for field in fields(ShardMeta) if field.name not in _NOTED_LATER)


@dataclass(frozen=True)
class HeldOutDocument:
    """Token ids of a held-out document and its length in UTF-8 bytes."""

    tokens: tuple[int, ...]
    size_bytes: int


def smallest_dtype(vocabulary_size: int) -> np.dtype[np.unsignedinteger]:
    """uint16 where every id fits, else uint32; little-endian."""
    return np.dtype("<u2" if vocabulary_size <= 2**16 else "<u4")


@dataclass(frozen=True)
class TokenShard:
    """An opened shard directory."""

    directory: Path
    meta: ShardMeta

    @classmethod
    def open(cls, directory: Path) -> "TokenShard":
        """Read the counts and check the files; raises `DataMissing` saying what is wrong."""
        try:
            meta = ShardMeta.from_json((directory / META).read_bytes())
            size = (directory / TOKENS).stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataMissing(
                directory, f"is not a prepared shard ({error}); prepare the domain again"
            ) from error
        expected = meta.tokens * np.dtype(meta.dtype).itemsize
        if size != expected:
            raise DataMissing(
                directory / TOKENS, f"has {size} bytes instead of {expected}; prepare the domain again"
            )
        return cls(directory, meta)

    @cached_property
    def tokens(self) -> np.ndarray:
        """The training tokens, (meta.tokens,), mapped and not read."""
        return np.memmap(self.directory / TOKENS, np.dtype(self.meta.dtype), mode="r")

    def held_out(self) -> tuple[HeldOutDocument, ...]:
        """The documents to evaluate on."""
        try:
            with (self.directory / HELD_OUT).open(encoding="utf-8") as lines:
                records = [json.loads(line) for line in lines]
            return tuple(HeldOutDocument(tuple(record["tokens"]), record["bytes"]) for record in records)
        except (OSError, ValueError, KeyError) as error:
            raise DataMissing(self.directory / HELD_OUT, f"cannot be read: {error}") from error


SAMPLE_CHARACTERS = 200


def sample_of(directory: Path) -> str | None:
    """The beginning of a document of a shard that is here, as it was read or decoded; None where it is elsewhere."""
    try:
        with (directory / HELD_OUT).open(encoding="utf-8") as lines:
            return json.loads(next(lines))["text"][:SAMPLE_CHARACTERS]
    except (OSError, StopIteration):
        return None
