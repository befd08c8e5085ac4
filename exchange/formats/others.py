"""Trainers whose own code was read but not run: Nanotron, and open-instruct."""

import json
from collections.abc import Sequence

from exchange.formats.base import Blend, Format, InvalidExport
from exchange.formats.plain import decimal

_BYTES = {"uint16": 2, "uint32": 4, "int32": 4}


class Nanotron(Format):
    """A stage of `data_stages`; needs a folder of datatrove's `.ds` files each."""

    name = "nanotron"
    title = "Nanotron"
    file = "data_stages.yaml"
    unit = "rows"
    checked = "against its documented schema"
    holds_phases = True

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        return {self.file: "\n".join(["data_stages:", *_stage(blend, "mixture", 1), ""])}

    def schedule(self, phases: Sequence[Blend]) -> dict[str, str]:
        """See `Format`. Steps are counted from 1."""
        lines, before = ["data_stages:"], 0
        for number, phase in enumerate(phases):
            lines += _stage(phase, f"phase-{number}", 1 + round(before / phase.batch_tokens))
            before += phase.needed("target_tokens")
        return {self.file: "\n".join([*lines, ""])}


def _stage(blend: Blend, name: str, step: int) -> list[str]:
    folders = [paths[0] for paths in blend.each("paths")]
    if blend.dtype not in _BYTES:
        raise InvalidExport(f"Nanotron reads tokens of 2 or 4 bytes, not {blend.dtype}", field="dtype")
    lines = [
        f"- name: {name}",
        f"  start_training_step: {step}",
        "  data:",
        f"    seed: {blend.seed}",
        "    dataset:",
        f"      dataset_folder: {json.dumps(folders)}",
        f"      dataset_weights: [{', '.join(decimal(source.weight) for source in blend.sources)}]",
        f"      token_size_in_bytes: {_BYTES[blend.dtype]}",
    ]
    return lines if blend.vocabulary is None else [*lines, f"      vocab_size: {blend.vocabulary}"]


class OpenInstruct(Format):
    """`--dataset_mixer_list`: a fraction of every domain's own documents; needs tokens and a target.

    A number without a point would be a count of documents, so every fraction is written with one.
    """

    name = "open-instruct"
    title = "open-instruct"
    file = "dataset_mixer_list.txt"
    unit = "share of the domain"
    checked = "against its documented schema"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        paths, tokens = blend.each("paths"), blend.each("tokens")
        target = blend.needed("target_tokens")
        parts = [
            f"{files[0]} {decimal(source.weight * target / available)}"
            for source, files, available in zip(blend.sources, paths, tokens, strict=True)
        ]
        return {self.file: " ".join(parts) + "\n"}

    def tokens(self, blend: Blend) -> Sequence[float]:
        """See `Format`."""
        blend.needed("target_tokens")
        return super().tokens(blend)


class Torchtitan(Format):
    """The data loader of a torchtitan configuration, which is Python; pinned to the version that has it.

    Each step packs a row of one source, drawn by weight: shares of the tokens. Every name has to be one of the
    `DATASETS` that the installation registers; the head of torchtitan has replaced this loader.
    """

    name = "torchtitan"
    title = "torchtitan 0.3.0 (InterleavedHuggingFaceTextDataLoader)"
    file = "dataloader.py"
    unit = "rows"
    checked = "against its source"
    exact = False

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        paths = blend.each("paths")
        lines = [
            "# torchtitan 0.3.0; register every dataset by its name in DATASETS.",
            "from torchtitan.hf_datasets.text_datasets import HFDataSource, InterleavedHuggingFaceTextDataLoader",
            "",
            "dataloader = InterleavedHuggingFaceTextDataLoader.Config(",
            "    sources=[",
        ]
        for source, files in zip(blend.sources, paths, strict=True):
            told = f"dataset={source.name!r}, dataset_path={files[0]!r}"
            lines.append(f"        HFDataSource({told}, weight={decimal(source.weight)}, infinite=True),")
        return {self.file: "\n".join([*lines, "    ],", f"    seed={blend.seed},", ")", ""])}
