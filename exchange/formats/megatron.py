"""Megatron-LM and what reads its files (Megatron Bridge, NeMo, GPT-NeoX): a blend list, and one with its splits.

Weights are rows of fixed length, dealt out one by one to the source furthest behind its weight
(`build_blending_indices`), so nothing is left to chance. Sources repeat without limit.
"""

import json
import math
from collections.abc import Sequence

import numpy as np

from exchange.formats.base import Blend, Format, InvalidExport
from exchange.formats.plain import apportioned, decimal

_MOST_SOURCES = 32_767
_SIMULATED = 200_000
"""Rows up to which the dealing is followed row by row; beyond, no source is further than two rows from its weight."""


class Megatron(Format):
    """`blend.txt` for `--data-args-path`, `splits.json` for `--per-split-data-args-path`; needs a path each."""

    name = "megatron"
    title = "Megatron-core 0.16 (also Megatron Bridge, NeMo, GPT-NeoX)"
    file = "blend.txt"
    unit = "rows"
    checked = "built and drawn with megatron-core 0.16.1"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        prefixes = [_prefix(name, paths) for name, paths in self._paths(blend)]
        pairs = list(zip(map(decimal, _weights(blend)), prefixes, strict=True))
        flat = [part for pair in pairs for part in pair]
        return {
            self.file: " ".join(flat) + "\n",
            "splits.json": json.dumps({"train": flat, "valid": None, "test": None}, indent=2) + "\n",
        }

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        weights = np.array(_weights(blend))
        weights /= weights.sum()
        rows = sum(math.ceil(blend.rows * weight) for weight in weights.tolist())
        counts = (
            _dealt(weights, rows) if rows <= _SIMULATED else np.array(apportioned(weights.tolist(), rows))
        )
        return (counts * float(blend.sequence_length)).tolist()

    def _paths(self, blend: Blend) -> list[tuple[str, tuple[str, ...]]]:
        if len(blend.sources) >= _MOST_SOURCES:
            raise InvalidExport(f"Megatron takes fewer than {_MOST_SOURCES} sources", field="weights")
        return list(zip((source.name for source in blend.sources), blend.each("paths"), strict=True))


def _weights(blend: Blend) -> list[float]:
    """Weights that are whole numbers of rows where the target is known."""
    weights = [source.weight for source in blend.sources]
    if blend.target_tokens is None:
        return weights
    return [count / blend.rows for count in apportioned(weights, blend.rows)]


def _prefix(name: str, paths: Sequence[str]) -> str:
    """The one path without `.bin` or `.idx`; the list is split at white space, and a number is taken for a weight."""
    prefixes = {path.removesuffix(".bin").removesuffix(".idx") for path in paths}
    if len(prefixes) > 1:
        raise InvalidExport(
            f"Megatron takes one file for each source; {name} has {len(prefixes)}",
            field="paths",
            names=[name],
        )
    (prefix,) = prefixes
    if any(character.isspace() for character in prefix) or prefix.replace(".", "", 1).isdigit():
        raise InvalidExport(f"Megatron cannot be told the path {prefix!r}", field="paths", names=[name])
    return prefix


def _dealt(weights: np.ndarray, rows: int) -> np.ndarray:
    """(m,) rows of each source, dealt as the trainer does."""
    counts = np.zeros(len(weights))
    for row in range(rows):
        counts[np.argmax(weights * max(row, 1) - counts)] += 1
    return counts
