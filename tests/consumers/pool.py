"""Domains of real text whose tokens tell where they come from: id = 256 times the domain's number + the byte."""

import struct
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

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


def write_indexed(domain: Domain, directory: Path) -> str:
    """A ``.bin`` and ``.idx`` pair as Megatron reads it: the path without either."""
    lengths = np.array([len(document) for document in domain.documents], np.int32)
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64) * 2]).astype(np.int64)
    prefix = directory / domain.name
    domain.tokens.tofile(prefix.with_suffix(".bin"))
    with prefix.with_suffix(".idx").open("wb") as file:
        file.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1))
        for array in (lengths, pointers, np.arange(len(lengths) + 1, dtype=np.int64)):
            file.write(array.tobytes())
    return str(prefix)


def shares(drawn: Mapping[str, float]) -> dict[str, float]:
    """Of what was drawn."""
    total = sum(drawn.values())
    return {name: count / total for name, count in drawn.items()}
