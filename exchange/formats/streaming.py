"""MosaicML Streaming and llm-foundry: whole numbers of rows (`choose`) for each stream, which it draws exactly.

The size of the epoch is their sum; an `epoch_size` beside them is refused.
"""

import json
from collections.abc import Sequence

from exchange.formats.base import Blend, Format
from exchange.formats.plain import apportioned


class Streaming(Format):
    """The `train_loader` of an llm-foundry run; needs a directory of MDS files each, and a target."""

    name = "streaming"
    title = "MosaicML Streaming 0.13 (llm-foundry)"
    file = "train_loader.yaml"
    unit = "rows"
    checked = "drawn with mosaicml-streaming 0.13.0"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        blend.each("paths")
        counts = apportioned([source.weight for source in blend.sources], blend.rows)
        lines = [
            "train_loader:",
            "  name: text",
            "  dataset:",
            f"    max_seq_len: {blend.sequence_length}",
            "    shuffle: true",
            f"    shuffle_seed: {blend.seed}",
            "    streams:",
        ]
        for source, count in zip(blend.sources, counts, strict=True):
            lines += [
                f"      {json.dumps(source.name)}:",
                f"        local: {json.dumps(source.paths[0])}",
                f"        choose: {count}",
            ]
        return {self.file: "\n".join([*lines, ""])}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        counts = apportioned([source.weight for source in blend.sources], blend.rows)
        return [count * float(blend.sequence_length) for count in counts]
