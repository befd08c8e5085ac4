"""What the numbers say, in plain words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.dashboard.formatting import (
    about,
    bpb,
    count,
    in_unit,
    interval,
    quantity,
    unit_of,
)
from service.launches.comparison import Comparison

Document = Mapping[str, Any]

_STAGES = {
    "prepare": "Counting and tokenizing the domains",
    "sample": "Sampling the swarm",
    "train": "Training proxy models",
    "solve": "Fitting the regression and solving for the mixture",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, and whether it is ``good``, ``open`` or ``bad`` news."""

    words: str
    tone: str


def progress_sentence(optimization: Document) -> str:
    """How far an optimization has come; changes with the runs and the minutes, not with every second."""
    state, progress = optimization["state"], optimization["progress"]
    runs = progress["runs"]
    trained = f"{count(runs['succeeded'])} of {count(runs['total'])} proxy runs"
    if state in ("failed", "cancelled"):
        how_far = f" after {trained}" if runs["total"] else ", with nothing to train"
        return f"{state.capitalize()}{how_far}."
    if state == "succeeded" and optimization["settings"].get("swarms"):
        return "Done: solved over runs that there were."
    if state == "succeeded" and not runs["total"]:
        return "Done: nothing had to be trained."
    if state == "succeeded":
        lost = f", {count(runs['failed'])} lost" if runs["failed"] else ""
        return f"Done: {trained} trained{lost}."
    if state == "queued" and optimization["stage"] == "prepare":
        return "Waiting for the domains to be prepared."
    words = _STAGES.get(optimization["stage"], "Waiting for a worker")
    rounds = len(optimization["settings"]["rounds"])
    if rounds > 1 and optimization["stage"] in ("sample", "train"):
        sampled = next(stage["done"] for stage in progress["stages"] if stage["name"] == "sample")
        number = sampled + (optimization["stage"] == "sample")
        words += f", round {number} of {rounds}"
    if optimization["stage"] != "train":
        return f"{words}."
    if runs["waiting"]:
        given_up = f", {count(runs['failed'])} lost" if runs["failed"] else ""
        return (
            f"{words.replace(_STAGES['train'], 'Waiting for results from elsewhere')}:"
            f" {count(runs['succeeded'])} of {count(runs['total'])} runs have theirs{given_up}."
        )
    words += f": {count(runs['succeeded'])} of {count(runs['total'])} runs done"
    if progress["eta_seconds"]:
        words += f", {about(progress['eta_seconds'])} left"
    return f"{words}."


def target_sentences(evidence: Document, to_know: Document | None = None) -> list[str]:
    """What is predicted of the planned training run, what may be off, and what knowing the transfer would cost."""
    at_target = evidence.get("at_target")
    if at_target is None:
        return []
    objective, unit = at_target["objective"], unit_of(evidence["objective"])
    away = 2 ** (at_target["doublings"]["parameters"] + at_target["doublings"]["tokens"])
    parts = [
        f"{name} {interval(bounds) if bounds else 'is not known'}"
        for name, bounds in objective["parts"].items()
    ]
    said = [
        f"The planned run, {quantity(at_target['parameters'])} parameters on {quantity(at_target['tokens'])} tokens,"
        f" is predicted to gain {in_unit(objective['gain'], unit)} over the natural distribution, between"
        f" {' and '.join(map(bpb, objective['interval']))}; that it gains at all has a probability of"
        f" {objective['probability_better']:.2f}.",
        f"Each cause of doubt alone: {', '.join(parts)}.",
    ]
    low, high = at_target["factor"]
    if at_target["transfer"] == "measured":
        return [
            *said,
            f"{at_target['anchors']} anchors tell what gains of the proxies are worth there; the way from them leaves"
            f" a factor of {low:.2f} to {high:.2f}.",
        ]
    others = "of too few mixtures" if evidence.get("anchors_left_out") else "none"
    said.append(
        f"The transfer is unknown: the proxies have one size and one length, {quantity(away)} times less compute than"
        f" the target; runs of another are {others}. By published models a gain may there be"
        f" {low:.2f} to {high:.2f} times as large."
    )
    known = to_know or at_target["to_know"]
    if known is not None:
        low, high = known["known"]
        hours = known.get("device_hours")
        price = "" if hours is None else f" ({hours:.2g} device-hours)"
        said.append(
            f"{known['runs']} runs of about {quantity(known['parameters'])} parameters on {quantity(known['tokens'])}"
            f" tokens{price} would narrow that to {low:.2f} to {high:.2f}."
        )
    return said


def measured_verdict(comparison: Comparison) -> Verdict:
    """What the launches found, beside what was predicted."""
    gain = comparison.objective
    direction = "better" if gain.measured > 0 else "worse"
    parameters = comparison.proposed["non_embedding_parameters"]
    model = f" with {quantity(parameters)} non-embedding parameters" if parameters else ""
    words = (
        f"Measured on a model{model}: {in_unit(gain.proposed, gain.unit)} on the proposed mixture, "
        f"{bpb(abs(gain.measured))} {direction} than {bpb(gain.natural)} on the natural distribution"
    )
    if gain.is_inside is not None:
        of = "predicted for it" if comparison.is_target else "of what a proxy was predicted to gain"
        words += f", {'within' if gain.is_inside else 'outside'} the interval {of}"
    return Verdict(words + ".", "good" if gain.measured > 0 else "bad")


def lineage_sentence(lineage: Document) -> str:
    """How many runs counted, by revision."""
    runs = [
        (revision["number"], run["counted"])
        for revision in lineage["revisions"]
        for swarm in (*revision["optimizations"], *revision.get("swarms", ()))
        for run in swarm["runs"]
    ]
    if not runs:
        return "No run was trained for it or for its ancestors."
    counted = Counter(number for number, is_counted in runs if is_counted)
    if not counted:
        return f"None of the {count(len(runs))} runs of its lineage counted for it."
    parts = " and ".join(f"{count(times)} of revision {number}" for number, times in counted.items())
    return f"{count(counted.total())} of the {count(len(runs))} runs of its lineage counted for it: {parts}."


def why_not_counted(runs: Sequence[Document]) -> list[tuple[str, int]]:
    """Reasons why runs of a lineage did not count, with how many each holds for, the commonest first."""
    return Counter(run["why"] for run in runs if not run["counted"]).most_common()


def changes_sentence(changes: Document) -> str:
    """What changed against the parent, by kind and number; the map has the names."""
    kinds = ("renamed", "revised", "added", "removed", "split", "merged")
    parts = [
        f"{count(len(changes[kind]))} {kind}{' into' * (kind == 'merged')}" for kind in kinds if changes[kind]
    ]
    return ", ".join([f"{count(changes['kept'])} kept", *parts]) + "."
