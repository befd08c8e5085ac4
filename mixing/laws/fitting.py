"""A regression fitted to all runs, and again without each fold of them.

The refits serve twice: what they predict of the runs they did not see is the held-out error, and how their optima
and claims differ is what the interval of the gain is made of (`mixing.answer.uncertainty`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.composed import joined, measured_alike
from mixing.laws.diagnostics import FEWEST_JUDGED, joined_folds, kept_in_folds
from mixing.laws.exponential.log_linear import believable
from mixing.laws.regression import Fitted
from mixing.parts import RegressionPart
from mixing.runs.table import RunTable

FOLDS = 5
_TRACE = 1e-5
"""Of a metric's deviation over all runs: a slope that changes no prediction that matters."""
_ROUNDED = 1e-2
"""A run's tokens are counted in whole ones, so a full run may be said to be a little less or more than one."""


@dataclass(frozen=True)
class Refits:
    """The regression fitted again without each fold, over several divisions into folds.

    Attributes:
        laws: (B,) the refits, fold by fold, division by division.
        predicted: (R, J, C) every run that can be judged by, predicted by the refit that did not see it, for each
            of R divisions.
        measured: (J, C) what these runs measured; NaN where one was not.
        weights: (J, m) their mixtures.
        left: share of the runs every refit was fitted to.
    """

    laws: tuple[Fitted, ...]
    predicted: np.ndarray
    measured: np.ndarray
    weights: np.ndarray
    left: float


def refit(
    part: RegressionPart, table: RunTable, generator: np.random.Generator, law: Fitted | None = None
) -> Refits | None:
    """Fit again without each of `FOLDS` folds, `part.repeats` times over.

    A law that looks at how much a run trained predicts full runs, so it is judged by these alone. None where too few
    runs would be left to fit, or measured a task to judge it by.

    Args:
        part: the regression.
        table: the runs in canonical order.
        generator: draws the folds.
        law: the fit to all runs, where it is at hand.
    """
    judged = judged_runs(part, table)
    if table.measured[judged].sum(axis=0).min() < FEWEST_JUDGED:
        return None
    try:
        kept = kept_in_folds(part.make(table), table.weights, generator, FOLDS, part.repeats)
        laws = _refits(part, table, kept, law)
    except TooFewRuns:
        return None
    predicted = np.stack([believable(law.mean(table.weights), table.filled) for law in laws])
    runs = joined_folds(predicted, kept, part.repeats)
    left = 1 - part.repeats / len(kept)
    return Refits(tuple(laws), runs[:, judged], table.metrics[judged], table.weights[judged], left)


def judged_runs(part: RegressionPart, table: RunTable) -> np.ndarray:
    """(K,) the runs a regression is judged by, see `refit`."""
    some = np.asarray(table.measured.any(axis=1))
    return some & np.isclose(table.tokens, 1.0, rtol=_ROUNDED) if part.reads_tokens else some


def fit(part: RegressionPart, table: RunTable) -> Fitted:
    """The regression fitted to all runs.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidSetting: as the regression.
        InvalidMetrics: a task for which the fitted law predicts no number, named.
    """
    blocks = _blocks(part, table)
    law = joined(
        [
            part.make(block).fit(block.weights, block.metrics, block.noise)
            for block in (table.rows(rows).columns(columns) for rows, columns in blocks)
        ],
        [columns for _, columns in blocks],
    )
    missing = np.unique(np.argwhere(~np.isfinite(law.mean(table.weights)))[:, 1])
    if len(missing):
        lost = sorted({table.names[column] for column in missing})
        raise InvalidMetrics(
            f"the regression {part.name!r} finds no law for {', '.join(lost)}; their metrics hardly vary, or by"
            " accident: leave them out, or ask for another regression",
            field="metrics",
            names=lost,
        )
    return law


def _blocks(part: RegressionPart, table: RunTable) -> list[tuple[np.ndarray, np.ndarray]]:
    """(k,) runs and the (c,) columns they all measured, to be fitted together: one block but for gaps.

    Raises:
        TooFewRuns: a block's runs are fewer than the regression needs.
    """
    measured, needed = table.measured, part.minimum_runs(table.weights.shape[1])
    blocks = []
    for columns in measured_alike(measured):
        rows = np.flatnonzero(measured[:, columns[0]])
        if len(rows) < min(needed, len(table)):
            names = ", ".join(table.names[column] for column in columns)
            raise TooFewRuns(
                f"only {len(rows)} runs measured {names}, and the regression {part.name!r} needs"
                f" {needed}; train more runs, or leave them out of the objective",
                needed=needed,
                given=len(rows),
            )
        blocks.append((rows, columns))
    return blocks


def _refits(part: RegressionPart, table: RunTable, kept: np.ndarray, law: Fitted | None) -> Sequence[Fitted]:
    """(B,) fits, each to the runs that its row of the (B, K) booleans `kept` keeps."""
    blocks = _blocks(part, table)
    whole = law if len(blocks) == 1 else None
    fits = [
        _refits_of_block(part, table.rows(rows).columns(columns), kept[:, rows], whole)
        for rows, columns in blocks
    ]
    return [joined(laws, [columns for _, columns in blocks]) for laws in zip(*fits, strict=True)]


def _refits_of_block(
    part: RegressionPart, block: RunTable, kept: np.ndarray, whole: Fitted | None
) -> Sequence[Fitted]:
    regression = part.make(block)
    if regression.fits_subsets_at_once:
        if kept.sum(axis=1).min() < FEWEST_JUDGED:
            raise TooFewRuns("a fold keeps hardly any run", needed=FEWEST_JUDGED, given=0)
        return regression.refits(block.weights, block.metrics, kept, block.noise, whole)
    folds = [block.rows(rows) for rows in kept]
    return [
        part.make(fold).fit(fold.weights, _varied(fold.weights, fold.metrics, block.metrics), fold.noise)
        for fold in folds
    ]


def _varied(weights: np.ndarray, metrics: np.ndarray, of_all: np.ndarray) -> np.ndarray:
    """(k, C) the metrics of a fold, of k runs, in which no task is quite constant.

    A task that differs in few runs, such as an accuracy, may be the same in all that a fold keeps. There it can
    only be predicted as that value; but most regressions refuse a constant, so it is given a slope too slight to
    count.
    """
    constant = np.ptp(metrics, axis=0) == 0
    slope = weights @ np.linspace(-1, 1, weights.shape[1])
    return np.where(constant, metrics + _TRACE * of_all.std(0) * slope[:, None], metrics)
