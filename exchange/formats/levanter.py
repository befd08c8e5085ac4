"""Levanter and Marin: each block holds a whole number of a domain's rows, and the rest goes to the heaviest."""

import json
from collections.abc import Sequence

from exchange.formats.base import Blend, Format, InvalidExport
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

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        paths = blend.each("paths")
        lines = ["data:"]
        if blend.vocabulary is not None:
            lines += ["  tokenizer: passthrough", f"  vocab_size: {blend.vocabulary}"]
        lines.append("  components:")
        for source, urls in zip(blend.sources, paths, strict=True):
            listed = json.dumps(list(urls))
            lines.append(
                f"    {json.dumps(source.name)}: {{type: cached, source: {{type: url, train_urls: {listed}}}}}"
            )
        weights = ", ".join(
            f"{json.dumps(source.name)}: {decimal(source.weight)}" for source in blend.sources
        )
        lines += [f"  train_weights: {{{weights}}}", f"  mixture_block_size: {block(blend)}", ""]
        return {self.file: "\n".join(lines)}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        size = block(blend)
        counts = [int(source.weight * size) for source in blend.sources]
        counts[max(range(len(counts)), key=lambda j: blend.sources[j].weight)] += size - sum(counts)
        scale = blend.target_tokens or size * blend.sequence_length
        return [count / size * scale for count in counts]


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
