"""A regression fitted to all runs, and again without each fold of them.

The refits serve twice: what they predict of the runs they did not see is the held-out error, and how their optima
and claims differ is what the interval of the gain is made of (`mixing.answer.uncertainty`).
"""

from dataclasses import dataclass

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.laws.composed import joined, measured_alike
from mixing.laws.diagnostics import FEWEST_JUDGED, joined_folds, kept_in_folds
from mixing.laws.exponential.log_linear import believable
from mixing.laws.regression import Fitted, Refitted
from mixing.objective import AGGREGATED
from mixing.parts import REGRESSIONS, RegressionPart
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


def fit_and_refit(
    part: RegressionPart, table: RunTable, generator: np.random.Generator
) -> tuple[Fitted, Refits | None]:
    """The law of all runs, and again without each of `FOLDS` folds, `part.repeats` times over.

    A law that looks at how much a run trained predicts full runs, so it is judged by these alone. No refits where
    too few runs would be left to fit, or measured a task to judge it by.

    Args:
        part: the regression.
        table: the runs in canonical order.
        generator: draws the folds.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidSetting: as `fit`.
    """
    judged = judged_runs(part, table)
    if table.measured[judged].sum(axis=0).min() < FEWEST_JUDGED:
        return fit(part, table), None
    try:
        kept = kept_in_folds(part.make(table), table.weights, generator, FOLDS, part.repeats)
        law, laws, predicted = _with_folds(part, table, kept)
    except TooFewRuns:
        return fit(part, table), None
    runs = joined_folds(believable(predicted, table.ends), kept, part.repeats)
    left = 1 - part.repeats / len(kept)
    # In one order in memory, or sums over it would round otherwise once it was kept and read again.
    unseen = np.ascontiguousarray(runs[:, judged])
    return law, Refits(laws, unseen, table.metrics[judged], table.weights[judged], left)


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
    return _with_folds(part, table, np.empty((0, len(table)), dtype=bool))[0]


def _with_folds(
    part: RegressionPart, table: RunTable, kept: np.ndarray
) -> tuple[Fitted, tuple[Fitted, ...], np.ndarray]:
    """The law of all runs, the (B,) laws of those that a row of the (B, K) booleans keeps, and what these predict.

    The predictions are (B, K, T), NaN where a run did not measure the task.
    """
    blocks = _blocks(part, table)
    columns = [block for _, _, block in blocks]
    predicted = np.full((len(kept), *table.metrics.shape), np.nan)
    found = []
    for law_of, rows, own in blocks:
        found.append(_block_with_folds(law_of, table.rows(rows).columns(own), kept[:, rows]))
        predicted[:, rows[:, None], own] = found[-1].predicted
    names = [law_of.name for law_of, _, _ in blocks]
    law = joined([each.whole for each in found], columns, names)
    _require_numbers(part, table, law)
    laws = tuple(joined(each, columns, names) for each in zip(*(each.parts for each in found), strict=True))
    return law, laws, predicted


def _require_numbers(part: RegressionPart, table: RunTable, law: Fitted) -> None:
    missing = np.unique(np.argwhere(~np.isfinite(law.mean(table.weights)))[:, 1])
    if len(missing):
        lost = sorted({table.names[column] for column in missing})
        raise InvalidMetrics(
            f"the regression {part.name!r} finds no law for {', '.join(lost)}; their metrics hardly vary, or by"
            " accident: leave them out, or ask for another regression",
            field="metrics",
            names=lost,
        )


def _blocks(part: RegressionPart, table: RunTable) -> list[tuple[RegressionPart, np.ndarray, np.ndarray]]:
    """(k,) runs and the (c,) columns they all measured, to be fitted together: one block but for gaps.

    Of a regression of the objective the tasks alone are blocks of another (`RegressionPart.tasks_by`).

    Raises:
        TooFewRuns: a block's runs are fewer than the regression needs.
    """
    shown = np.array([part.tasks_by is not None and name != AGGREGATED for name in table.names])
    measured, needed = table.measured, part.minimum_runs(table.weights.shape[1])
    blocks = []
    # What is measured alike and fitted by one regression.
    for columns in measured_alike(np.concatenate([measured, shown[None]])):
        law_of = REGRESSIONS[part.tasks_by] if part.tasks_by and shown[columns[0]] else part
        rows = np.flatnonzero(measured[:, columns[0]])
        if len(rows) < min(needed, len(table)):
            names = ", ".join(table.names[column] for column in columns)
            raise TooFewRuns(
                f"only {len(rows)} runs measured {names}, and the regression {part.name!r} needs"
                f" {needed}; train more runs, or leave them out of the objective",
                needed=needed,
                given=len(rows),
            )
        blocks.append((law_of, rows, columns))
    return blocks


def _block_with_folds(part: RegressionPart, block: RunTable, kept: np.ndarray) -> Refitted:
    """Of runs that all measured the block's tasks."""
    regression = part.make(block)
    if not len(kept) or regression.fits_subsets_at_once:
        if len(kept) and kept.sum(axis=1).min() < FEWEST_JUDGED:
            raise TooFewRuns("a fold keeps hardly any run", needed=FEWEST_JUDGED, given=0)
        return regression.fit_and_refit(block.weights, block.metrics, kept, block.noise)
    whole = regression.fit(block.weights, block.metrics, block.noise)
    folds = [block.rows(rows) for rows in kept]
    laws = tuple(
        part.make(fold).fit(fold.weights, _varied(fold.weights, fold.metrics, block.metrics), fold.noise)
        for fold in folds
    )
    return Refitted(whole, laws, np.stack([law.mean(block.weights) for law in laws]))


def _varied(weights: np.ndarray, metrics: np.ndarray, of_all: np.ndarray) -> np.ndarray:
    """(k, C) the metrics of a fold, of k runs, in which no task is quite constant.

    A task that differs in few runs, such as an accuracy, may be the same in all that a fold keeps. There it can
    only be predicted as that value; but most regressions refuse a constant, so it is given a slope too slight to
    count.
    """
    constant = np.ptp(metrics, axis=0) == 0
    slope = weights @ np.linspace(-1, 1, weights.shape[1])
    return np.where(constant, metrics + _TRACE * of_all.std(0) * slope[:, None], metrics)
