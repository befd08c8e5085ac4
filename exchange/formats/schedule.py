"""A mixture a phase: in one file where it holds several (Levanter's and Nanotron's stages), else in a folder each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exchange.formats.base import Blend, InvalidExport, Realised, check_caps
from exchange.formats.catalogue import format_named


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
