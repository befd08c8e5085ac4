"""What the runs of a lineage teach about the newest revision's mixtures.

All runs are points of the simplex of contents (`mixing.change.lineage`), and the regression is fitted there.
Where ratios
are frozen there is a second way: the runs that keep these ratios are points of the smaller simplex of virtual and
free domains, and a law of far fewer parameters can be fitted to them alone. Which of the two is better is asked of
cross-validation: both predict the runs that keep the ratios, each unseen, and the one with the smaller mean
absolute error of the objective is taken. Both errors are reported.

Whatever was fitted, what comes out is a law of the newest revision's domains.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mixing.change.lineage import EvidenceSpace
from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.composed import through
from mixing.laws.diagnostics import FEWEST_JUDGED, HeldOutError, held_out_error
from mixing.laws.fitting import Refits, fit_and_refit, judged_runs
from mixing.laws.regression import Fitted
from mixing.parts import REGRESSIONS, RegressionPart
from mixing.runs.evidence import Evidence, Needs, RunEvidence, gather
from mixing.runs.table import Groups, RunTable

if TYPE_CHECKING:  # only named here
    from mixing.question import Question

CONTENTS, VIRTUAL = "contents", "virtual domains"
ON_RATIOS = 1e-3
"""L1 distance from the frozen ratios within which a run keeps them, as far as whole rows can."""


_DIGITS = 9
"""Mixtures alike to so many are one mixture, carried on two ways."""


@dataclass(frozen=True)
class Candidate:
    """One of the two ways to fit, and how it did on the runs that keep the ratios.

    Attributes:
        where: over the contents, or over virtual domains.
        weights: how many it reads.
        runs: how many runs it was fitted to.
        judged: how many it was judged by.
        mae: of the objective, unseen, in the metric's unit.
        rank_correlation: of the objective, unseen.
    """

    where: str
    weights: int
    runs: int
    judged: int
    mae: float
    rank_correlation: float


@dataclass(frozen=True)
class Learned:
    """A law of the newest revision's domains, with what it was learned from.

    Attributes:
        evidence: every run, its weights the newest revision's mixture nearest to it.
        law: of (m,) mixtures.
        refits: without each fold, laws of (m,) mixtures; None where too few runs could be left out.
        held_out: errors on runs not seen; None likewise.
        where: what the law was fitted over.
        candidates: both ways to fit, where both could be judged.
        not_compared: why a law over virtual domains could not be, where ratios are frozen; else None.
    """

    evidence: Evidence
    law: Fitted
    refits: Refits | None
    held_out: HeldOutError | None
    where: str
    candidates: tuple[Candidate, ...]
    not_compared: str | None


def learn(question: "Question", runs: Sequence[RunEvidence], generator: np.random.Generator) -> Learned:
    """Fit and cross-validate the question's regression.

    Args:
        question: with what it reuses.
        runs: the finished runs, in any order.
        generator: draws the folds.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain, DuplicateRun: the runs
            (`mixing.runs.evidence.gather`).
    """
    space = question.reuse.evidence_space(question.domains)
    part = REGRESSIONS[question.parts.regression]
    least_weights = min(len(space.contents), len(question.space.free))
    guarded = [rail.task for rail in question.guard_rails]
    evidence = gather_over(question, space, runs, least_weights, guarded)
    contents = evidence.table
    shown, off = space.onto_newest(contents.weights)
    evidence = replace(evidence, table=replace(contents.over(space.newest.free, shown), off=off))
    over_contents = _over_contents(space, part, contents, shown, generator)
    candidates, why_not = (), None
    if question.reuse.groups:
        chosen, candidates, why_not = _better(question, evidence, over_contents, generator)
    elif isinstance(over_contents, _Fit):
        chosen = over_contents
    else:
        raise over_contents
    held_out = None
    if chosen.refits is not None:
        held_out = _error(chosen.refits, evidence.groups)
    return Learned(evidence, chosen.law, chosen.refits, held_out, chosen.where, candidates, why_not)


def gather_over(
    question: "Question",
    space: EvidenceSpace,
    runs: Sequence[RunEvidence],
    least_weights: int | None = None,
    guarded: Collection[str] = (),
) -> Evidence:
    """The newest revision's runs and older ones, joined over the contents.

    A run that one of the newest revision repeats, with the same seed and so to the last bit, counts once.

    Args:
        question: its regression will be fitted; its older runs' mixtures are over the contents.
        space: the contents.
        runs: their mixtures over the newest revision's domains.
        least_weights: how few weights a law may read, where ratios are kept; None for all contents.
        guarded: tasks with a guard rail.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidWeights, UnknownDomain, MissingDomain, DuplicateRun: as `gather`.
    """
    width = len(space.contents) if least_weights is None else least_weights
    part = REGRESSIONS[question.parts.regression]
    others = {name: other.minimum_runs(width) for name, other in REGRESSIONS.items() if other.offered}
    if not space.is_plain:
        runs = [run.carried(partial(space.carry, space.revision)) for run in runs]
    return gather(
        space.contents,
        (*runs, *_not_repeated(runs, question.reuse.runs)),
        question.specification,
        Needs(part.minimum_runs(width), others, part.positive, guarded),
    )


def _not_repeated(runs: Sequence[RunEvidence], older: Sequence[RunEvidence]) -> list[RunEvidence]:
    """The older runs but those whose mixture one of the runs has, with the same value of every task of both."""
    seen: dict[tuple[tuple[str, float], ...], list[RunEvidence]] = {}
    for run in runs:
        seen.setdefault(_rounded(run), []).append(run)
    return [run for run in older if not any(_agree(run, other) for other in seen.get(_rounded(run), ()))]


def _rounded(run: RunEvidence) -> tuple[tuple[str, float], ...]:
    return tuple((name, round(weight, _DIGITS)) for name, weight in sorted(run.mixture.items()) if weight > 0)


def _agree(one: RunEvidence, other: RunEvidence) -> bool:
    shared = one.metrics.keys() & other.metrics.keys()
    return bool(shared) and all(one.metrics[task] == other.metrics[task] for task in shared)


@dataclass(frozen=True)
class _Fit:
    """A law with its refits, and the (K,) runs they were judged by."""

    where: str
    law: Fitted
    refits: Refits | None
    judged: np.ndarray
    width: int
    runs: int

    def through(self, matrix: np.ndarray, shown: np.ndarray) -> "_Fit":
        """The same as laws of (m,) mixtures; (J, m) `shown` are the runs as such mixtures."""
        refits = self.refits
        if refits is not None:
            laws = tuple(through(law, matrix) for law in refits.laws)
            refits = replace(refits, laws=laws, weights=shown[self.judged])
        return replace(self, law=through(self.law, matrix), refits=refits)


def _fitted(where: str, part: RegressionPart, table: RunTable, generator: np.random.Generator) -> _Fit:
    law, refits = fit_and_refit(part, table, generator)
    return _Fit(where, law, refits, judged_runs(part, table), len(table.domains), len(table))


def _over_contents(
    space: EvidenceSpace,
    part: RegressionPart,
    contents: RunTable,
    shown: np.ndarray,
    generator: np.random.Generator,
) -> _Fit | TooFewRuns:
    """The law over the contents, or why there are too few runs for it; (K, m) `shown` are the newest's mixtures."""
    needed = part.minimum_runs(len(space.contents))
    if len(contents) < needed:
        return TooFewRuns(
            f"{len(contents)} runs are too few for a law over {len(space.contents)} texts; it needs {needed}",
            needed=needed,
            given=len(contents),
        )
    try:
        return _fitted(CONTENTS, part, contents, generator).through(space.newest.matrix, shown)
    except TooFewRuns as refused:  # of some task
        return refused


def _better(
    question: "Question",
    evidence: Evidence,
    over_contents: _Fit | TooFewRuns,
    generator: np.random.Generator,
) -> tuple[_Fit, tuple[Candidate, ...], str | None]:
    """The law over the contents, or one over the virtual domains where it predicts the runs on them better.

    With it both ways to fit, or why one was not possible.

    Raises:
        TooFewRuns: for both.
    """
    space, runs = question.space, evidence.table
    searched = space.collapse(runs.weights)
    # One that was asked to keep them is off by its rounding to whole rows, and its projection by as much again.
    apart = runs.off + np.abs(space.expand(searched) - runs.weights).sum(axis=1)
    keeping = apart <= ON_RATIOS + 2 * runs.rounding
    reduced = runs.over(space.free, searched).rows(keeping)
    try:
        over_virtual = _fitted(VIRTUAL, REGRESSIONS[question.parts.regression], reduced, generator)
    except (TooFewRuns, InvalidMetrics) as refused:  # no law of their own for the runs that keep the ratios
        if not isinstance(over_contents, _Fit):
            raise
        return over_contents, (), f"of the runs that keep the ratios alone: {refused}"
    collapsing = (space.matrix > 0).T.astype(float)
    reduced_law = over_virtual.through(collapsing, runs.weights[keeping])
    if not isinstance(over_contents, _Fit):
        return reduced_law, (), str(over_contents)
    both = over_contents.judged & keeping & _among(keeping, over_virtual.judged)
    candidates = tuple(
        candidate
        for law, judged in ((over_contents, both), (over_virtual, both[keeping]))
        if (candidate := _judged(law, judged, evidence.groups)) is not None
    )
    if len(candidates) < 2:
        return over_contents, (), "too few runs keep the ratios to judge both by"
    if candidates[1].mae >= candidates[0].mae:
        return over_contents, candidates, None
    return reduced_law, candidates, None


def _among(rows: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(K,) booleans from those of the runs that (K,) `rows` keeps."""
    found = np.zeros(len(rows), bool)
    found[np.flatnonzero(rows)[chosen]] = True
    return found


def _judged(law: _Fit, judged: np.ndarray, groups: Groups) -> Candidate | None:
    """How a fit did on some of its runs; None without refits, or where hardly any run is left to judge by."""
    if law.refits is None or judged.sum() < FEWEST_JUDGED:
        return None
    within = judged[law.judged]
    error = _error(law.refits, groups, within)
    scores = float(error.mae[-1]), float(error.rank_correlation[-1])
    return Candidate(law.where, law.width, law.runs, int(judged.sum()), *scores)


def _error(refits: Refits, groups: Groups, within: np.ndarray | slice = slice(None)) -> HeldOutError:
    """Of the runs they were judged by, or of some of them."""
    predicted, measured = refits.predicted[:, within], refits.measured[within]
    return held_out_error(groups.with_value(predicted), groups.with_value(measured))
