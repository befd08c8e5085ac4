"""Mixtures as the trainers people use read them: a format a file, all of one shape (`base.Format`).

Each says what it weighs by, what it needs to know beyond the weights, how the trainer rounds, and how that was
checked; with every file comes what the trainer will really draw (`base.Realised`).

A schedule is a mixture a phase: in one file where the format holds several (Levanter's and Nanotron's stages), else
in a folder each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exchange.formats.base import Blend, Format, InvalidExport, Realised, Source, check_caps
from exchange.formats.hugging_face import Datasets, LlamaFactory
from exchange.formats.levanter import Levanter
from exchange.formats.litdata import LitData
from exchange.formats.megatron import Megatron
from exchange.formats.olmo_core import OlmoCore
from exchange.formats.others import Nanotron, OpenInstruct, Torchtitan
from exchange.formats.plain import Csv, Json, Olmix, RegMix, Yaml, apportioned
from exchange.formats.rows import Axolotl, Streaming

__all__ = [
    "FORMATS",
    "Blend",
    "Export",
    "Format",
    "InvalidExport",
    "Realised",
    "ScheduleExport",
    "Source",
    "apportioned",
    "export",
    "export_schedule",
    "format_named",
    "write_files",
]

_ALL: tuple[Format, ...] = (
    *(OlmoCore(), Megatron(), Streaming(), Datasets(), LlamaFactory(), LitData(), Levanter()),
    *(Axolotl(), Nanotron(), OpenInstruct(), Torchtitan(), Olmix(), RegMix(), Csv(), Json(), Yaml()),
)
FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}


@dataclass(frozen=True)
class Export:
    """A mixture in one format: `{file name: content}`, and what the trainer draws of it."""

    files: Mapping[str, str]
    realised: Realised


def format_named(name: str) -> Format:
    """The format. Raises InvalidExport for one that does not exist, listing those that do."""
    if name not in FORMATS:
        raise InvalidExport(f"there is no format {name!r}; there are {', '.join(FORMATS)}", field="format")
    return FORMATS[name]


def export(mixture: Blend | Mapping[str, float], name: str, **run: Any) -> Export:
    """Write a mixture in a format.

        made = mixwright.export({"web": 0.75, "code": 0.25}, "olmo-core", path="/data/{domain}/*.npy",
                                tokens={"web": 6e9, "code": 2e9}, target_tokens=10**9)
        made.files["sources.yaml"], made.realised.shares

    Args:
        mixture: a blend, or `{domain: weight}`.
        name: of the format (`FORMATS`).
        run: with weights, what `Blend.of` takes beside them.

    Raises:
        InvalidExport: no such format; what it needs and was not told; a mixture it cannot hold, or a cap that its
            rounding would break.
    """
    chosen = format_named(name)
    blend = mixture if isinstance(mixture, Blend) else Blend.of(mixture, **run)
    return Export(chosen.files(blend), chosen.realised(blend))


def write_files(files: Mapping[str, str], directory: Path) -> None:
    """Write an export's files into a directory, made where there is none; of a schedule some lie in folders."""
    for name, content in files.items():
        path = directory.joinpath(*[part for part in name.split("/") if part not in ("", ".", "..")])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@dataclass(frozen=True)
class ScheduleExport:
    """The files, what the trainer draws in each phase, and in all of them together."""

    files: Mapping[str, str]
    phases: tuple[Realised, ...]
    whole: Realised


def export_schedule(phases: Sequence[Blend], name: str) -> ScheduleExport:
    """Write a mixture a phase.

        run = {"path": "/data/{domain}.jsonl", "sequence_length": 4096, "batch_rows": 512}
        early = Blend.of({"web": 0.9, "math": 0.1}, target_tokens=9 * 10**11, **run)
        late = Blend.of({"web": 0.5, "math": 0.5}, target_tokens=10**11, **run)
        mixwright.export_schedule([early, late], "levanter").files["data.yaml"]

    Args:
        phases: in order, each with its `target_tokens`, all of one row and batch. A domain's tokens and the smallest
            cap count over all of them.
        name: of a format. Where one file holds one mixture only each phase has a folder, `phase-0` and so on, and a
            seed of its own, since its trainer begins each domain anew.

    Raises:
        InvalidExport: phases of different rows or batches, or without a target; what the format cannot hold; a domain
            that all phases together read more often than the cap.
    """
    if len(phases) < 2:
        raise InvalidExport("a schedule has two phases at least", field="phases")
    if len({(phase.sequence_length, phase.batch_tokens) for phase in phases}) > 1:
        raise InvalidExport("the phases have different rows or batches", field="phases")
    for phase in phases:
        phase.needed("target_tokens")
    chosen = format_named(name)
    if not chosen.holds_phases:
        phases = [replace(phase, seed=phase.seed + number) for number, phase in enumerate(phases)]
    drawn = tuple(chosen.realised(replace(phase, repetition_cap=None)) for phase in phases)
    whole = _together(phases, drawn)
    caps = [phase.repetition_cap for phase in phases if phase.repetition_cap is not None]
    if caps:
        check_caps(replace(phases[0], repetition_cap=min(caps)), whole)
    return ScheduleExport(chosen.schedule(phases), drawn, whole)


def _together(phases: Sequence[Blend], drawn: Sequence[Realised]) -> Realised:
    """What all phases draw: tokens and epochs add up, and so does what was asked for."""
    total = sum(phase.target_tokens or 0 for phase in phases)
    tokens: dict[str, float] = {}
    epochs: dict[str, float] = {}
    asked: dict[str, float] = {}
    for phase, report in zip(phases, drawn, strict=True):
        share = (phase.target_tokens or 0) / total
        for name, count in report.tokens.items():
            tokens[name] = tokens.get(name, 0.0) + count
            asked[name] = asked.get(name, 0.0) + share * report.asked[name]
        for name, count in report.epochs.items():
            epochs[name] = epochs.get(name, 0.0) + count
    first = drawn[0]
    return Realised(first.format, first.exact, total, tokens, asked, epochs, first.checked)
