"""Levanter and Marin: each block holds a whole number of a domain's rows, and the rest goes to the heaviest."""

import json
import math
from collections.abc import Sequence

from exchange.formats.base import Blend, Format, InvalidExport, Source
from exchange.formats.plain import decimal

_BLOCK = 2048
_LARGEST_BLOCK = 2**20


class Levanter(Format):
    """The `data:` section of a configuration; needs the URLs of every domain.

    The block is doubled until the domain of the smallest weight has a row in it; below that it has nothing, for ever.
    """

    name = "levanter"
    title = "Levanter 0.2 (Marin)"
    file = "data.yaml"
    unit = "rows"
    checked = "against its documented schema, with the rounding of its blocks"
    holds_phases = True

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        return {self.file: _written([blend], _weights(blend, blend.sources), block(blend))}

    def schedule(self, phases: Sequence[Blend]) -> dict[str, str]:
        """See `Format`. A stage begins at a step that ends a block: the nearest one to where it was asked for."""
        size = max(map(block, phases))
        every = tuple({source.name: source for phase in phases for source in phase.sources}.values())
        rows = phases[0].batch_tokens // phases[0].sequence_length
        apart = math.lcm(size, rows) // rows
        stages, before = [], 0
        for phase in phases:
            step = round(before / phases[0].batch_tokens / apart) * apart
            stages.append(f"[{step}, {_weights(phase, every)}]")
            before += phase.needed("target_tokens")
        return {self.file: _written(phases, f"[{', '.join(stages)}]", size)}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        size = block(blend)
        counts = [int(source.weight * size) for source in blend.sources]
        counts[max(range(len(counts)), key=lambda j: blend.sources[j].weight)] += size - sum(counts)
        scale = blend.target_tokens or size * blend.sequence_length
        return [count / size * scale for count in counts]


def _written(phases: Sequence[Blend], weights: str, size: int) -> str:
    """The section over the components of all phases."""
    lines = ["data:"]
    if (vocabulary := phases[0].vocabulary) is not None:
        lines += ["  tokenizer: passthrough", f"  vocab_size: {vocabulary}"]
    lines.append("  components:")
    urls = {
        source.name: paths
        for phase in phases
        for source, paths in zip(phase.sources, phase.each("paths"), strict=True)
    }
    for name, paths in urls.items():
        listed = json.dumps(list(paths))
        lines.append(f"    {json.dumps(name)}: {{type: cached, source: {{type: url, train_urls: {listed}}}}}")
    return "\n".join([*lines, f"  train_weights: {weights}", f"  mixture_block_size: {size}", ""])


def _weights(blend: Blend, sources: Sequence[Source]) -> str:
    """A mapping over the sources; 0 for those that the phase leaves out."""
    weights = {source.name: source.weight for source in blend.sources}
    parts = (f"{json.dumps(source.name)}: {decimal(weights.get(source.name, 0.0))}" for source in sources)
    return f"{{{', '.join(parts)}}}"


def block(blend: Blend) -> int:
    """Rows of a block.

    Raises:
        InvalidExport: a weight that no block of a reasonable size holds.
    """
    least = min(blend.sources, key=lambda source: source.weight)
    size = _BLOCK
    while int(least.weight * size) == 0:
        size *= 2
        if size > _LARGEST_BLOCK:
            raise InvalidExport(
                f"{least.name} weighs {least.weight:.2g}; no block of Levanter's holds less than"
                f" {1 / _LARGEST_BLOCK:.1g}",
                field="weights",
                names=[least.name],
            )
    return size
