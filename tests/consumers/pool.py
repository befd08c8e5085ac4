"""Domains of real text whose tokens tell where they come from: id = 256 times the domain's number + the byte."""

import json
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from proxy_models.text.token_shard import META, TOKENS, ShardMeta, TokenShard
from proxy_models.text.token_writing import Order, write_tokens

END_OF_TEXT = 0
SPAN = 256
_FEWEST = 4_000
"""Tokens of the smallest domain."""


@dataclass(frozen=True)
class Domain:
    """Documents of token ids, and the weight it has in the mixture."""

    name: str
    weight: float
    documents: tuple[np.ndarray, ...]

    @property
    def tokens(self) -> np.ndarray:
        """All of it, one document after the other."""
        return np.concatenate(self.documents)


def domains(count: int) -> tuple[Domain, ...]:
    """So many domains of the standard library's sources, from 4 thousand to a million tokens, unequally weighed."""
    sizes = np.geomspace(_FEWEST, 1_000_000, count).astype(int)
    weights = np.random.default_rng(count).dirichlet(np.full(count, 2.0)) * 0.5 + 0.5 * sizes / sizes.sum()
    texts = _texts()
    return tuple(
        Domain(f"d{number:02d}", float(weight), tuple(_documents(texts, number, int(size))))
        for number, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    )


def _texts() -> list[bytes]:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(path for path in library.glob("*.py") if path.stat().st_size > 2_000)
    return [path.read_bytes() for path in islice(files, 120)]


def _documents(texts: Sequence[bytes], number: int, size: int):
    """Documents of about 1,000 to 8,000 tokens, longer in domains of a higher number, until there are enough."""
    left, at = size, number
    while left > 0:
        text = texts[at % len(texts)][: 1_000 + 7_000 * number // 64]
        ids = np.frombuffer(text[: left - 1] if left > 1 else b"", np.uint8).astype(np.uint16)
        # Byte 0 of the first domain would be the end of a text; sources have none.
        yield np.append(ids + SPAN * number, END_OF_TEXT).astype(np.uint16)
        left -= len(ids) + 1
        at += 1


def write_raw(domain: Domain, directory: Path, files: int = 1) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Raw arrays as OLMo-core reads them, cut at documents: paths and tokens of each."""
    parts = [part for part in np.array_split(np.arange(len(domain.documents)), files) if len(part)]
    paths, tokens = [], []
    for index, part in enumerate(parts):
        ids = np.concatenate([domain.documents[each] for each in part])
        path = directory / f"{domain.name}-{index}.npy"
        ids.tofile(path)
        paths.append(str(path))
        tokens.append(len(ids))
    return tuple(paths), tuple(tokens)


def write_for(layout: str, domain: Domain, directory: Path, length: int, rows: int | None = None) -> str:
    """A domain's tokens as the workers write them for a trainer: what the trainer is told."""
    shard = directory / "shards" / domain.name
    shard.mkdir(parents=True)
    domain.tokens.tofile(shard / TOKENS)
    counts = dict.fromkeys(
        (
            *("documents", "size_bytes", "held_out_documents", "held_out_bytes", "held_out_tokens"),
            *("evaluation_documents", "evaluation_bytes", "evaluation_tokens"),
        ),
        1,
    )
    meta = ShardMeta(
        key=domain.name,
        tokenizer="bytes",
        vocabulary_size=2**16,
        end_of_text=END_OF_TEXT,
        dtype="<u2",
        tokens=len(domain.tokens),
        **counts,
    )
    (shard / META).write_text(json.dumps(asdict(meta)))
    order = Order(layout, length, rows)
    return write_tokens(TokenShard.open(shard), directory / layout / domain.name, order).path


def shares(drawn: Mapping[str, float]) -> dict[str, float]:
    """Of what was drawn."""
    total = sum(drawn.values())
    return {name: count / total for name, count in drawn.items()}
