"""The cheapest sound way to a new mixture when domains have changed, and what it costs, before anything is trained.

Two things can be reused. **Ratios** (Olmix, arXiv 2602.12237): domains whose text is unchanged keep their ratios to
each other and become one virtual domain, whose cap follows from its members, min_j k N_j / (R r_j). **Runs**: a run
of an older revision is a point of the simplex of contents and enters the new fit.

What is left to learn is counted, not guessed: the directions of the mixtures to be searched in which the older
runs never moved, d of them. Each takes 2.5 new runs, and so does their common level, 2.5 (d + 1) runs; 3 where the
regression's priors carry nothing, so that it needs a run for every parameter (`benchmarks.reuse`). Without older
runs a swarm of the method's own size over the domains that are searched is trained.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidSetting, TooFewRuns
from mixing.laws.diagnostics import UNVARIED
from mixing.methods import method_named
from mixing.parts import REGRESSIONS
from mixing.reuse.choice import Choice, Continuation, Groups, PastRun, choose
from mixing.reuse.reuse import Reuse, least_new_runs, not_reusable
from mixing.runs.evidence import RunEvidence
from mixing.simplex_map import SimplexMap
from mixing.terms import ReusePlan

RUNS_PER_DIRECTION = 2.5
"""For a regression whose priors carry the fit where there are fewer runs than parameters."""
RUNS_PER_DIRECTION_WITHOUT_PRIORS = 3
_DIGITS = 9
"""Mixtures alike to so many are one mixture, carried on two ways."""
_TRACE = 5e-3
"""A smaller share of text that is gone is not worth a word."""
_OF_LARGEST = 0.05
"""Of the weight a content may have, the standard deviation over the runs that tells of it."""
_ALIKE = 1e-9
"""Columns of length 1 that differ by no more are one direction."""


def plan_reuse(continuation: Continuation) -> ReusePlan:
    """The plan.

    Raises:
        InvalidSetting: ratios to keep without a mixture, nothing to free for `partial`, or a recipe that cannot
            reuse what was asked for.
        UnknownDomain: a domain to free that is not there.
        UnknownRevision: the mixture, or a run, is of another lineage.
        Infeasible: no mixture with these ratios keeps to the caps and constraints; the members in conflict are named,
            with the least change that helps.

    >>> from mixing.change.lineage import RevisionNode, space_of
    >>> from mixing.change.revision import Leaf
    >>> space = space_of([RevisionNode("1", {"web": Leaf(6e9, "w"), "code": Leaf(2e9, "c")})], "1")
    >>> from mixing.question import Question
    >>> from mixing.reuse.choice import newest_domains
    >>> question = Question(domains=newest_domains(space), objective={"humaneval": 1.0}, target_tokens=4e9)
    >>> plan = plan_reuse(Continuation(question, space))
    >>> plan.kind, plan.new_runs, plan.recompute_runs  # there are no older runs
    ('none', 10, 10)
    """
    past = _Past.of(continuation)
    reused, set_aside = _sort_runs(continuation, past)
    choice = _possible(continuation, choose(continuation, _is_enough(continuation, reused)))
    way = SimplexMap.freeze(continuation.space.newest.free, choice.groups)
    least = _least(continuation, choice.groups, reused)
    new_runs, why = _new_runs(continuation, way, reused, past.of_runs(reused), least)
    caps, members = way.pull_back_caps(continuation.limits.caps)
    virtual = {name: way.free.index(name) for name in choice.groups}
    everything = method_named(continuation.question.method).default_runs(
        len(way.leaves), continuation.question.parts
    )
    seconds = continuation.seconds_per_run
    return ReusePlan(
        kind=choice.kind,
        why=(*choice.why, *why),
        recomputed=tuple(name for name in way.free if name not in choice.groups),
        groups=choice.groups,
        virtual_caps={name: float(caps[at]) for name, at in virtual.items()},
        binding_members={name: way.leaves[members[at]] for name, at in virtual.items()},
        reused=reused,
        set_aside=set_aside,
        new_runs=new_runs,
        least_new_runs=least,
        recompute_runs=everything,
        new_seconds=None if seconds is None else new_runs * seconds,
        recompute_seconds=None if seconds is None else everything * seconds,
        lost=choice.lost,
    )


def _possible(continuation: Continuation, choice: Choice) -> Choice:
    """The choice, unless the recipe knows no virtual domains."""
    reason = not_reusable(continuation.question.parts, ratios=True, runs=False)
    if not choice.groups or reason is None:
        return choice
    if continuation.kind != "auto":
        raise InvalidSetting(f"{reason}; ask for reuse 'none'", field="reuse")
    return Choice("none", {}, (f"Every domain is searched: {reason}.",))


@dataclass(frozen=True)
class _Past:
    """The runs there are, with what a plan asks of each.

    Attributes:
        runs: in order.
        points: (K, c) over the contents.
        measured: (K,) how many of the objective's tasks were measured.
    """

    runs: tuple[PastRun, ...]
    points: np.ndarray
    measured: tuple[int, ...]

    @classmethod
    def of(cls, continuation: Continuation) -> "_Past":
        space = continuation.space
        points = np.zeros((len(continuation.past), len(space.contents)))
        for revision in {run.revision for run in continuation.past}:
            rows = [row for row, run in enumerate(continuation.past) if run.revision == revision]
            points[rows] = space.carry_all(revision, [continuation.past[row].mixture for row in rows])
        counted = set(continuation.tasks)
        measured = tuple(len(counted & set(run.tasks)) for run in continuation.past)
        return cls(continuation.past, points, measured)

    def of_runs(self, chosen: Collection[str]) -> np.ndarray:
        """(k, c) the points of these runs."""
        return self.points[[run.id in chosen for run in self.runs]]


def _sort_runs(continuation: Continuation, past: _Past) -> tuple[dict[str, str], dict[str, str]]:
    """`{run: why it counts}` and `{run: why it does not}`."""
    refused = not_reusable(continuation.question.parts, ratios=False, runs=True)
    here = continuation.space.newest.matrix.any(axis=1)
    gone = past.points[:, ~here].sum(axis=1)
    identities = np.round(past.points, _DIGITS)
    reused, aside = {}, {}
    first: dict[tuple[int | None, bytes], str] = {}
    for row, run in enumerate(past.runs):
        if not continuation.reuse_runs:
            aside[run.id] = "older runs are not reused here"
        elif refused is not None:
            aside[run.id] = refused
        elif run.unlike is not None:
            aside[run.id] = run.unlike
        elif not past.measured[row]:
            aside[run.id] = "none of the objective's tasks was measured on it"
        elif (same := first.setdefault((run.seed, identities[row].tobytes()), run.id)) != run.id:
            aside[run.id] = f"it repeats run {same}: the same mixture, trained with the same seed"
        else:
            reused[run.id] = _reason(continuation, run, past.measured[row], float(gone[row]))
    return reused, aside


def _reason(continuation: Continuation, run: PastRun, measured: int, gone: float) -> str:
    said = f"trained for revision {run.revision}"
    if measured < len(continuation.tasks):
        said += f", counts for {measured} of {len(continuation.tasks)} tasks"
    if gone > _TRACE:
        said += f", {gone:.0%} of it text that is no longer there"
    if run.seed != continuation.question.seed:
        said += ", with another seed, so it counts about half"
    return said


def _is_enough(continuation: Continuation, reused: Mapping[str, str]) -> bool:
    """Whether the reused runs alone can be fitted, for every task of the objective."""
    return bool(reused) and _least(continuation, {}, reused) == 0


def _least(continuation: Continuation, groups: Groups, reused: Mapping[str, str]) -> int:
    """Fewest new runs that, with the reused ones, a law can be fitted to."""
    runs = tuple(
        RunEvidence(run.id, {}, dict.fromkeys(run.tasks, 0.0), older=True)
        for run in continuation.past
        if run.id in reused
    )
    space = continuation.space if runs else None
    return least_new_runs(
        continuation.question.parts,
        Reuse(groups, space, runs),
        continuation.limits.domains,
        continuation.tasks,
    )


def _new_runs(
    continuation: Continuation, way: SimplexMap, reused: Mapping[str, str], points: np.ndarray, least: int
) -> tuple[int, tuple[str, ...]]:
    """How many runs to train, and why so many.

    Raises:
        TooFewRuns: fewer asked for than a law can be fitted to.
    """
    rounds = len(method_named(continuation.question.method).rounds)
    if continuation.runs is not None:
        if continuation.runs < least:
            raise TooFewRuns(
                f"{continuation.runs} new runs and {len(reused)} older ones are too few for the"
                f" {continuation.question.parts.regression} regression; ask for {least} or more",
                needed=least,
                given=continuation.runs,
            )
        return continuation.runs, (f"{continuation.runs} new runs, as asked.",)
    if len(way.free) == 1:
        return 0, ("Every ratio is kept, so there is nothing to learn.",)
    usual = method_named(continuation.question.method).default_runs(
        len(way.free), continuation.question.parts
    )
    if not reused:
        return usual, (f"{usual} new runs over the {len(way.free)} that are searched: no older run counts.",)
    unknown = unknown_directions(
        (continuation.space.newest.matrix @ way.matrix).T, points, _largest(continuation)
    )
    if unknown == 0 and least == 0:
        return 0, ("No new run: the older ones moved in every direction that is searched.",)
    bare = REGRESSIONS[continuation.question.parts.regression].runs_per_domain >= 1
    each = RUNS_PER_DIRECTION_WITHOUT_PRIORS if bare else RUNS_PER_DIRECTION
    new = math.ceil(each * (unknown + 1))
    new = max(min(new, usual), rounds)
    # The fewest for a law that the older runs have a part in.
    fewest = _least(continuation, {}, reused) + rounds - 1
    if new < fewest:
        return fewest, (
            f"{fewest} new runs: the fewest that, with {len(reused)} older ones, a law can do with.",
        )
    directions = "1 direction is" if unknown == 1 else f"{unknown} directions are"
    return new, (f"{new} new runs: {len(reused)} older ones count, and {directions} new to them.",)


def _largest(continuation: Continuation) -> np.ndarray:
    """(c,) the most each content may weigh in a mixture of the newest revision."""
    return (continuation.space.newest.matrix * np.minimum(continuation.limits.caps, 1)).max(axis=1)


def unknown_directions(searched: np.ndarray, points: np.ndarray, largest: np.ndarray) -> int:
    """How many directions of what is searched no older run has moved in: what is left to learn.

    Two kinds of contents are unknown: those that no run varied, and those that all runs varied in one proportion, as
    the parts of a domain that was split since were. Of contents that moved together one direction is known; a mixture
    that divides them otherwise moves in another. Whether there were enough runs for what they moved in is another
    question, which the regression answers (`mixing.reuse.reuse.least_new_runs`).

    Args:
        searched: (n, c) over the contents, one row for each of what is searched.
        points: (K, c) the runs.
        largest: (c,) the most a content may weigh: one that may be a trace only has moved when it moved so little.
    """
    if not len(points):
        return len(searched) - 1
    spread = points.std(axis=0)
    moved = (spread > 0) & (spread >= np.minimum(UNVARIED, _OF_LARGEST * largest))
    unknown = _rank(searched[:, ~moved])
    for together in _proportional(points, np.flatnonzero(moved)):
        known = points[:, together].sum(axis=0)
        unknown += _rank(np.vstack([known / known.sum(), searched[:, together]])) - 1
    return unknown


def _proportional(points: np.ndarray, columns: np.ndarray) -> list[np.ndarray]:
    """Sets of more than one of the columns that are multiples of each other."""
    lengths = np.linalg.norm(points[:, columns], axis=0)
    signature = (points[:, columns] / lengths).T @ np.cos(np.arange(len(points)))
    order = np.argsort(signature, kind="stable")
    breaks = np.flatnonzero(np.diff(signature[order]) > _ALIKE) + 1
    return [columns[group] for group in np.split(order, breaks) if len(group) > 1]


def _rank(rows: np.ndarray) -> int:
    present = rows[rows.any(axis=1)]
    return int(np.linalg.matrix_rank(present)) if present.size else 0
