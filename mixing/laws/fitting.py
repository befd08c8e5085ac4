"""A regression fitted to all runs, and again without each fold of them.

The refits serve twice: what they predict of the runs they did not see is the held-out error, and how their optima
and claims differ is what the interval of the gain is made of (`mixing.answer.uncertainty`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.catalogue import RegressionPart
from mixing.laws.composed import joined, measured_alike
from mixing.laws.diagnostics import joined_folds, kept_in_folds
from mixing.laws.exponential.log_linear import believable
from mixing.laws.regression import FitContext, Fitted, Regression
from mixing.runs.evidence import Evidence

FOLDS = 5
_TRACE = 1e-5
"""Of a metric's deviation over all runs: a slope that changes no prediction that matters."""
FEWEST_JUDGED = 4
"""Runs below which a held-out error is no more than an accident."""
_ROUNDED = 1e-2
"""A run's tokens are counted in whole ones, so a full run may be said to be a little less or more than one."""


@dataclass(frozen=True)
class Columns:
    """What one regression is fitted to at once: every task, then the groups where the law is of coarser grain.

    Tasks are fitted whatever the granularity is, so that the gain of each is seen.

    Attributes:
        names: (C,) the tasks first, in the evidence's order.
        metrics: (K, C); NaN where an older run was not measured.
        noise: (K, C), 0 where unknown; what may be off in an older run is counted in.
        weights: (C,) of each column in the objective, summing to 1; of a mean of families where the worst counts.
        families: (F,) names of the families that count.
        membership: (F, C) of each family's mean.
        offsets: (F,) what is taken off each mean before the worst is chosen.
        worst: whether the objective is the worst family's mean instead of the weighted one.
    """

    names: tuple[str, ...]
    metrics: np.ndarray
    noise: np.ndarray
    weights: np.ndarray
    families: tuple[str, ...]
    membership: np.ndarray
    offsets: np.ndarray
    worst: bool

    @classmethod
    def of(cls, evidence: Evidence) -> "Columns":
        """The columns of the evidence at its objective's granularity."""
        groups = evidence.groups
        tasks = len(evidence.tasks)
        if groups.names == evidence.tasks and np.array_equal(groups.matrix, np.eye(tasks)):
            names, metrics, noise, membership = (
                evidence.tasks,
                evidence.metrics,
                evidence.noise,
                groups.membership,
            )
        else:
            coarse = evidence.grouped()
            counted = np.flatnonzero(groups.membership.any(0))
            names = evidence.tasks + tuple(groups.names[column] for column in counted)
            metrics = np.concatenate([evidence.metrics, coarse.metrics[:, counted]], axis=1)
            noise = np.concatenate([evidence.noise, coarse.noise[:, counted]], axis=1)
            none = np.zeros((len(groups.membership), tasks))
            membership = np.concatenate([none, groups.membership[:, counted]], axis=1)
        spread = np.nanstd(metrics, axis=0)
        return cls(
            names,
            metrics,
            np.hypot(noise, evidence.doubt[:, None] * spread),
            groups.weights @ membership,
            groups.families,
            membership,
            groups.offsets,
            groups.aggregation == "worst family",
        )

    @property
    def measured(self) -> np.ndarray:
        """(K, C) whether the run was measured."""
        return ~np.isnan(self.metrics)

    @property
    def complete(self) -> np.ndarray:
        """(K,) whether everything was measured on the run."""
        return np.asarray(self.measured.all(axis=1))

    @property
    def filled(self) -> np.ndarray:
        """(K, C) the metrics, with a column's mean where one is missing: for their range, not to be fitted."""
        return np.where(self.measured, self.metrics, np.nanmean(self.metrics, axis=0))

    def objective(self, columns: np.ndarray) -> np.ndarray:
        """(...,) the objective, lower is better, of (..., C) column values."""
        if self.worst:
            return (columns @ self.membership.T - self.offsets).max(axis=-1)
        return columns @ self.weights

    def with_objective(self, columns: np.ndarray) -> np.ndarray:
        """(..., C + 1) the (..., C) column values and the objective of them."""
        return np.concatenate([columns, self.objective(columns)[..., None]], axis=-1)


@dataclass(frozen=True)
class Refits:
    """The regression fitted again without each fold, over several divisions into folds.

    Attributes:
        laws: (B,) the refits, fold by fold, division by division.
        predicted: (R, J, C) every run that can be judged by, predicted by the refit that did not see it, for each
            of R divisions.
        measured: (J, C) what these runs measured.
        weights: (J, m) their mixtures.
        left: share of the runs every refit was fitted to.
    """

    laws: tuple[Fitted, ...]
    predicted: np.ndarray
    measured: np.ndarray
    weights: np.ndarray
    left: float


def refit(
    part: RegressionPart,
    context: FitContext,
    weights: np.ndarray,
    columns: Columns,
    generator: np.random.Generator,
) -> Refits | None:
    """Fit again without each of `FOLDS` folds, `part.repeats` times over.

    A law that looks at how much a run trained predicts full runs, so it is judged by these alone, and only by runs on
    which everything was measured. None where too few runs would be left to fit, or are there to judge by.

    Args:
        part: the regression.
        context: what it is told besides weights and metrics.
        weights: (K, m) mixtures in canonical run order.
        columns: their metrics.
        generator: draws the folds.
    """
    judged = judged_runs(part, context, columns)
    if judged.sum() < FEWEST_JUDGED:
        return None
    try:
        kept = kept_in_folds(part.make(context), weights, generator, FOLDS, part.repeats)
        laws = _fits(part, context, weights, columns, kept)
    except TooFewRuns:
        return None
    predicted = np.stack([believable(law.predict(weights)[0], columns.filled) for law in laws])
    runs = joined_folds(predicted, kept, part.repeats)
    left = 1 - part.repeats / len(kept)
    return Refits(tuple(laws), runs[:, judged], columns.metrics[judged], weights[judged], left)


def judged_runs(part: RegressionPart, context: FitContext, columns: Columns) -> np.ndarray:
    """(K,) the runs a regression is judged by, see `refit`."""
    judged = columns.complete
    if part.reads_tokens:
        judged = judged & np.isclose(context.tokens, 1.0, rtol=_ROUNDED)
    return judged


def fit(part: RegressionPart, context: FitContext, weights: np.ndarray, columns: Columns) -> Fitted:
    """The regression fitted to all runs.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidSetting: as the regression.
        InvalidMetrics: a task for which the fitted law predicts no number, named.
    """
    blocks = list(_blocks(part, context, weights, columns))
    law = joined(
        [block.regression.fit(block.weights, block.metrics, block.noise) for block in blocks],
        [block.columns for block in blocks],
    )
    missing = np.unique(np.argwhere(~np.isfinite(law.predict(weights)[0]))[:, 1])
    if len(missing):
        lost = sorted({columns.names[column] for column in missing})
        raise InvalidMetrics(
            f"the regression {part.name!r} finds no law for {', '.join(lost)}; their metrics hardly vary, or by"
            " accident: leave them out, or ask for another regression",
            field="metrics",
            names=lost,
        )
    return law


@dataclass(frozen=True)
class _Block:
    """Columns measured on the same runs, fitted together.

    Attributes:
        part, context: what they are fitted by, told of these runs and columns only.
        columns: (c,) their positions.
        rows: (k,) the runs.
        weights: (k, m).
        metrics, noise: (k, c).
    """

    part: RegressionPart
    context: FitContext
    columns: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    metrics: np.ndarray
    noise: np.ndarray

    @property
    def regression(self) -> Regression:
        return self.part.make(self.context)

    def refits(self, kept: np.ndarray) -> Sequence[Fitted]:
        """(B,) fits, each to the runs that its row of the (B, k) booleans `kept` keeps."""
        regression = self.regression
        if regression.fits_subsets_at_once:
            if kept.sum(axis=1).min() < FEWEST_JUDGED:
                raise TooFewRuns("a fold keeps hardly any run", needed=FEWEST_JUDGED, given=0)
            return regression.refits(self.weights, self.metrics, kept, self.noise)
        return [
            self.part.make(self.context.of(rows)).fit(
                self.weights[rows],
                _varied(self.weights[rows], self.metrics[rows], self.metrics),
                self.noise[rows],
            )
            for rows in kept
        ]


def _blocks(
    part: RegressionPart, context: FitContext, weights: np.ndarray, columns: Columns
) -> Iterator[_Block]:
    """The columns in blocks that the same runs measured: one, unless there are older runs that lack some.

    Raises:
        TooFewRuns: a block's runs are fewer than the regression needs.
    """
    measured, needed = columns.measured, part.minimum_runs(weights.shape[1])
    for positions in measured_alike(measured):
        rows = measured[:, positions[0]]
        names = [columns.names[position] for position in positions]
        if not rows.all() and rows.sum() < needed:
            raise TooFewRuns(
                f"only {rows.sum()} runs measured {', '.join(names)}, and the regression {part.name!r} needs"
                f" {needed}; train more runs, or leave them out of the objective",
                needed=needed,
                given=int(rows.sum()),
            )
        yield _Block(
            part,
            replace(context.of(rows), columns=tuple(names)),
            positions,
            np.flatnonzero(rows),
            weights[rows],
            columns.metrics[np.ix_(rows, positions)],
            columns.noise[np.ix_(rows, positions)],
        )


def _fits(
    part: RegressionPart, context: FitContext, weights: np.ndarray, columns: Columns, kept: np.ndarray
) -> Sequence[Fitted]:
    blocks = list(_blocks(part, context, weights, columns))
    fits = [block.refits(kept[:, block.rows]) for block in blocks]
    return [joined(laws, [block.columns for block in blocks]) for laws in zip(*fits, strict=True)]


def _varied(weights: np.ndarray, metrics: np.ndarray, of_all: np.ndarray) -> np.ndarray:
    """(k, C) the metrics of a fold, of k runs, in which no task is quite constant.

    A task that differs in few runs, such as an accuracy, may be the same in all that a fold keeps. There it can
    only be predicted as that value; but most regressions refuse a constant, so it is given a slope too slight to
    count.
    """
    constant = np.ptp(metrics, axis=0) == 0
    slope = weights @ np.linspace(-1, 1, weights.shape[1])
    return np.where(constant, metrics + _TRACE * of_all.std(0) * slope[:, None], metrics)
