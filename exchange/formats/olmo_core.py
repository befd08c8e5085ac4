"""OLMo-core: a YAML list of sources for `SourceMixtureList.from_yaml`.

Weights are tokens. Every file is an entry of its own: each holds its part of the source, rounded up to tokens and
down to rows; the rows that are then missing are dealt out evenly over all files that have room, and what is left by
the largest remainders (`SourceMixtureDatasetConfig.build`). So one large file beside many small ones gets less than
its share. The report follows these steps.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exchange.formats.base import Blend, Format, InvalidExport, Source
from exchange.formats.plain import decimal

_MOST_READINGS = 1_000_000
"""Of files: each is an entry of the trainer's own list."""


@dataclass
class _Entry:
    """One reading of one file: the tokens wanted of it, and how many rows it can give."""

    source: int
    wanted: int
    room: int
    rows: int = 0


class OlmoCore(Format):
    """`sources:` with names, ratios and paths; needs paths, and a target for the report."""

    name = "olmo-core"
    title = "OLMo-core 3.0 (SourceMixtureList)"
    file = "sources.yaml"
    unit = "tokens"
    checked = "built and drawn with ai2-olmo-core 3.0.0"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        blend.each("paths")
        cap = blend.repetition_cap
        lines = ["sources:"]
        for source, ratio in zip(blend.sources, _ratios(blend), strict=True):
            lines += [
                f"- source_name: {json.dumps(source.name)}",
                f"  target_ratio: {decimal(ratio)}",
                f"  max_repetition_ratio: {decimal(max(cap, 1.0) if cap else _enough(blend, source))}",
                "  paths:",
                *(f"  - {json.dumps(path)}" for path in source.paths),
            ]
        return {self.file: "\n".join([*lines, ""])}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        requested, length = int(blend.needed("target_tokens")), blend.sequence_length
        entries: list[_Entry] = []
        for position, (source, ratio) in enumerate(zip(blend.sources, _ratios(blend), strict=True)):
            files, wanted = source.file_tokens or _one_file(source), int(requested * ratio)
            if len(entries) + wanted / sum(files) * len(files) > _MOST_READINGS:
                raise InvalidExport(
                    f"{source.name} would be read {wanted / sum(files):.3g} times; lower the target",
                    field="target_tokens",
                    names=[source.name],
                )
            entries += _entries(position, files, wanted, length)
        missing = blend.rows - _take(entries, length)
        if missing > 0:
            _deal(entries, missing, length)
        drawn = [0.0] * len(blend.sources)
        for entry in entries:
            drawn[entry.source] += entry.rows * length
        return drawn


def _ratios(blend: Blend) -> list[float]:
    """Weights whose sum is 1 to the last bit or nearly so; a sum of 1.0000001 is refused by the trainer."""
    total = math.fsum(source.weight for source in blend.sources)
    return [source.weight / total for source in blend.sources]


def _enough(blend: Blend, source: Source) -> float:
    """Repetitions that are enough for the source where there is no cap."""
    if not source.tokens or blend.target_tokens is None:
        return 1.0
    return max(float(math.ceil(source.weight * blend.target_tokens / source.tokens)), 1.0)


def _one_file(source: Source) -> tuple[int, ...]:
    if not source.tokens:
        raise InvalidExport(
            f"{source.name} needs its tokens or those of its files", field="tokens", names=[source.name]
        )
    return (int(source.tokens),)


def _entries(position: int, files: Sequence[int], selected: int, length: int) -> Iterator[_Entry]:
    """Every reading of a source's files: whole ones first, and what is left of the last."""
    remaining = selected / sum(files)
    while remaining > 0:
        part = min(1.0, remaining)
        for tokens in files:
            yield _Entry(position, math.ceil(tokens * part), tokens // length)
        remaining -= part


def _take(entries: Sequence[_Entry], length: int) -> int:
    """Whole rows of what is wanted of each; their sum."""
    for entry in entries:
        entry.rows = min(entry.wanted // length, entry.room)
    return sum(entry.rows for entry in entries)


def _deal(entries: Sequence[_Entry], missing: int, length: int) -> None:
    """The missing rows: as many to every entry with room, the rest by the largest remainders."""
    open_ones = [entry for entry in entries if entry.rows < entry.room]
    if not open_ones:
        return
    remainders = {id(entry): (entry.wanted % length) / length for entry in open_ones}
    each = missing // len(open_ones)
    before = sum(entry.rows for entry in open_ones)
    for entry in open_ones:
        entry.rows += min(each, entry.room - entry.rows)
    missing -= sum(entry.rows for entry in open_ones) - before
    order = {id(entry): index for index, entry in enumerate(entries)}
    candidates = [entry for entry in open_ones if entry.rows < entry.room]
    candidates.sort(key=lambda entry: (remainders[id(entry)], order[id(entry)]), reverse=True)
    for entry in candidates[: max(missing, 0)]:
        entry.rows += 1
