"""A small world in which a law is known over contents, to plan and to propose in."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mixing.change.lineage import EvidenceSpace, RevisionNode, space_of
from mixing.change.revision import Changes, Leaf
from mixing.question import Question
from mixing.reuse.choice import Continuation, PastRun, StartMixture, newest_domains
from mixing.runs.evidence import RunEvidence

TASKS = ("t0", "t1", "t2")
TARGET = 100e9

FIRST = {f"d{number}": Leaf(10e9 * (number + 1), f"text {number}") for number in range(6)}


def second(changes: str) -> tuple[dict[str, Leaf], Changes]:
    """What became of `FIRST`: one of `added`, `removed`, `renamed`, `revised`, `split`, `merged`."""
    leaves = dict(FIRST)
    kept = {name: name for name in FIRST}
    if changes == "added":
        leaves |= {"e0": Leaf(30e9, "text e0"), "e1": Leaf(15e9, "text e1")}
        return leaves, Changes(kept=kept, added=("e0", "e1"))
    old = "d3"
    leaf = leaves.pop(old)
    del kept[old]
    if changes == "removed":
        return leaves, Changes(kept=kept, removed=(old,))
    if changes == "renamed":
        return leaves | {"other": leaf}, Changes(kept={**kept, "other": old})
    if changes == "revised":
        return leaves | {old: Leaf(35e9, "other text")}, Changes(kept=kept, revised={old: old})
    if changes == "split":
        parts = {f"{old}:{part}": Leaf(10e9 * (part + 1), f"part {part}") for part in range(3)}
        return leaves | parts, Changes(kept=kept, split={old: tuple(parts)})
    assert changes == "merged"
    other = leaves.pop("d4")
    del kept["d4"]
    return leaves | {"whole": Leaf((leaf.tokens or 0) + (other.tokens or 0), "both")}, Changes(
        kept=kept, merged={"whole": (old, "d4")}
    )


def updated_space(leaves: Mapping[str, Leaf], changes: Changes) -> EvidenceSpace:
    """The contents after one update."""
    return space_of([RevisionNode("1", FIRST), RevisionNode("2", leaves, "1", changes)], "2")


def metrics_of(
    contents: Mapping[str, float], noise: float = 0.0, generator: np.random.Generator | None = None
) -> dict[str, float]:
    """What a model trained on these contents would measure: a power law of what each is worth to each task."""
    drawn = np.random.default_rng(5).lognormal(-0.5, 1.0, (40, len(TASKS)))
    worth = dict(zip([f"d{n}" for n in range(6)] + ["e0", "e1"], drawn, strict=False))
    total = sum(
        np.sqrt(weight + 1e-4) * worth.get(name.split("@")[0].split(":")[0], worth["d0"])
        for name, weight in contents.items()
    )
    values = 0.8 + 0.5 * np.asarray(total) ** -0.5
    if generator is not None:
        values = values + noise * generator.normal(size=len(TASKS))
    return dict(zip(TASKS, values.tolist(), strict=True))


def runs_of_first(space: EvidenceSpace, count: int, seed: int = 0) -> list[RunEvidence]:
    """Runs of revision 1, over its own domains."""
    generator = np.random.default_rng(seed)
    found = []
    for number, row in enumerate(generator.dirichlet(np.ones(len(FIRST)), count)):
        mixture = dict(zip(FIRST, row.tolist(), strict=True))
        metrics = metrics_of(space.carry("1", mixture), 1e-3, generator)
        found.append(RunEvidence(f"old{number}", mixture, metrics, seed=0))
    return found


def past_of(runs: Sequence[RunEvidence], revision: str = "1") -> tuple[PastRun, ...]:
    """The same runs as a plan sees them."""
    return tuple(
        PastRun(run.id, revision, run.mixture, tuple(run.metrics), None, run.seed or 0) for run in runs
    )


def continuation_of(space: EvidenceSpace, past: Sequence[PastRun] = (), **changes: object) -> Continuation:
    """A question about the mixwright method, going on from the natural distribution of revision 1.

    `changes` are of the question or of what it goes on from; `tasks` names those of the objective.
    """
    total = sum(leaf.tokens or 0 for leaf in FIRST.values())
    start = StartMixture("m1", "1", {name: (leaf.tokens or 0) / total for name, leaf in FIRST.items()})
    if (tasks := changes.pop("tasks", None)) is not None:
        changes["objective"] = dict.fromkeys(tasks, 1.0)  # pyright: ignore[reportArgumentType, reportCallIssue]
    of_question = {name: changes.pop(name) for name in list(changes) if name in Question.__dataclass_fields__}
    question = Question(
        domains=newest_domains(space), objective=dict.fromkeys(TASKS, 1.0), target_tokens=TARGET
    )
    asked = replace(question, **of_question)  # pyright: ignore[reportArgumentType]
    return replace(Continuation(asked, space, tuple(past), start, "full"), **changes)  # pyright: ignore[reportArgumentType]
