"""The page of a mixture's lineage: which runs of which revision counted, in the order it is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.dashboard.formatting import count

Document = Mapping[str, Any]

MOST_RUNS = 200
"""Rows of a swarm's runs that are drawn; all are in the API's document."""
MOST_ROWS = 400
"""Rows of a map that are drawn."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """An optimization of the chain and what became of its runs."""

    optimization: Document
    counted: int
    reasons: Sequence[tuple[str, int]]
    runs: Sequence[Document]
    undrawn: int


@dataclass(frozen=True, slots=True)
class RevisionPart:
    """A revision with its map and its swarms."""

    revision: Document
    map: Sequence[Document]
    undrawn: int
    swarms: Sequence[Swarm]


@dataclass(frozen=True, slots=True)
class LineagePage:
    """Everything the template shows."""

    mixture: Document
    sentence: str
    starts: Sequence[Document]
    revisions: Sequence[RevisionPart]


def lineage_page(lineage: Document) -> LineagePage:
    """The page of the API's document."""
    return LineagePage(
        mixture=lineage["mixture"],
        sentence=lineage_sentence(lineage),
        starts=lineage["starts"],
        revisions=[_revision(one) for one in lineage["revisions"]],
    )


def lineage_sentence(lineage: Document) -> str:
    """How many runs counted, by revision."""
    counted = {
        revision["number"]: sum(run["counted"] for one in revision["optimizations"] for run in one["runs"])
        for revision in lineage["revisions"]
    }
    total = sum(len(one["runs"]) for revision in lineage["revisions"] for one in revision["optimizations"])
    if not total:
        return "No run was trained for it or for its ancestors."
    parts = [f"{count(runs)} of revision {number}" for number, runs in counted.items() if runs]
    if not parts:
        return f"None of the {count(total)} runs of its lineage counted for it."
    said = f"{count(sum(counted.values()))} of the {count(total)} runs of its lineage counted for it"
    return f"{said}: {' and '.join(parts)}."


def changes_sentence(changes: Document) -> str:
    """What changed against the parent, by kind and number; the map has the names."""
    words = (
        ("renamed", changes["renamed"]),
        ("revised", changes["revised"]),
        ("added", changes["added"]),
        ("removed", changes["removed"]),
        ("split", changes["split"]),
        ("merged into", changes["merged"]),
    )
    said = [f"{count(len(names))} {word}" for word, names in words if names]
    return ", ".join([f"{count(changes['kept'])} kept", *said]) + "."


def _revision(revision: Document) -> RevisionPart:
    rows = [
        {
            **row,
            "affected": row["domain"] in revision["changes"]["confirmed"],
            "confirmed": revision["changes"]["confirmed"].get(row["domain"]),
            "unconfirmed": revision["changes"]["unconfirmed"].get(row["domain"]),
        }
        for row in revision["map"]
    ]
    return RevisionPart(
        revision={**revision, "sentence": changes_sentence(revision["changes"])},
        map=rows[:MOST_ROWS],
        undrawn=max(len(rows) - MOST_ROWS, 0),
        swarms=[_swarm(one) for one in reversed(revision["optimizations"])],
    )


def _swarm(optimization: Document) -> Swarm:
    runs = optimization["runs"]
    reasons = Counter(run["why"] for run in runs if not run["counted"])
    return Swarm(
        optimization=optimization,
        counted=sum(run["counted"] for run in runs),
        reasons=reasons.most_common(),
        runs=runs[:MOST_RUNS],
        undrawn=max(len(runs) - MOST_RUNS, 0),
    )
