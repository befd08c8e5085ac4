"""Trainers that are given whole numbers of rows, which they draw exactly: as `choose`, or as the rows themselves."""

import json
from collections.abc import Sequence

from exchange.formats.base import Blend, Format
from exchange.formats.plain import apportioned


class _Rows(Format):
    unit = "rows"

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        return [count * float(blend.sequence_length) for count in row_counts(blend)]


class Streaming(_Rows):
    """The `train_loader` of an llm-foundry run; needs a directory of MDS files each, and a target.

    The size of the epoch is the sum of `choose`; an `epoch_size` beside them is refused.
    """

    name = "streaming"
    title = "MosaicML Streaming 0.13 (llm-foundry)"
    file = "train_loader.yaml"
    checked = "drawn with mosaicml-streaming 0.13.0"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`. A stream in a store is copied below `/tmp/streaming` as it is read."""
        blend.each("paths")
        lines = [
            "train_loader:",
            "  name: text",
            "  dataset:",
            f"    max_seq_len: {blend.sequence_length}",
            "    shuffle: true",
            f"    shuffle_seed: {blend.seed}",
            "    streams:",
        ]
        for source, count in zip(blend.sources, row_counts(blend), strict=True):
            path = source.paths[0]
            lines.append(f"      {json.dumps(source.name)}:")
            if "://" in path:
                lines.append(f"        remote: {json.dumps(path)}")
                path = f"/tmp/streaming/{source.name.replace(':', '/')}"
            lines += [f"        local: {json.dumps(path)}", f"        choose: {count}"]
        return {self.file: "\n".join([*lines, ""])}


class Axolotl(_Rows):
    """The `datasets` of an Axolotl run; needs files that hold each domain's rows, repeats included, and a target.

    Axolotl joins data sets and weighs nothing, so the mixture is in the files. The workers write them,
    and the comments say how many rows others have to have.
    """

    name = "axolotl"
    title = "Axolotl 0.19 (pre-tokenized data sets)"
    file = "axolotl.yaml"
    checked = "loaded and counted with axolotl 0.19.0"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        blend.each("paths")
        lines = ["datasets:"]
        for source, count in zip(blend.sources, row_counts(blend), strict=True):
            lines.append(f"  # {source.name}: {count} rows of {blend.sequence_length} tokens in all")
            for path in source.paths:
                lines += [f"  - path: {json.dumps(path)}", "    ds_type: parquet", "    type:"]
        settings = {
            "shuffle_merged_datasets": "true",
            "sequence_len": blend.sequence_length,
            "sample_packing": "false",
            "num_epochs": 1,
            "seed": blend.seed,
        }
        return {self.file: "\n".join([*lines, *(f"{name}: {value}" for name, value in settings.items()), ""])}


def row_counts(blend: Blend) -> list[int]:
    """Rows of each source in the whole run."""
    return apportioned([source.weight for source in blend.sources], blend.rows)
