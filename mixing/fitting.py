"""A regression fitted to all runs, and again without each fold of them.

The refits serve twice: what they predict of the runs they did not see is the held-out error, and how their optima
and claims differ is what the interval of the gain is made of (`mixing.uncertainty`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.evidence import Evidence
from mixing.parts import FitContext, RegressionPart
from mixing.regression.diagnostics import joined_folds, kept_in_folds
from mixing.regression.log_linear import believable
from mixing.regression.protocol import Batched, Fitted

FOLDS = 5
_TRACE = 1e-5
"""Of a metric's deviation over all runs: a slope that changes no prediction that matters."""
_FEWEST_JUDGED = 4
"""Runs below which a held-out error is no more than an accident."""
_ROUNDED = 1e-2
"""A run's tokens are counted in whole ones, so a full run may be said to be a little less or more than one."""


@dataclass(frozen=True)
class Columns:
    """What one regression is fitted to at once: every task, then the groups where the law is of coarser grain.

    Tasks are fitted whatever the granularity is, so that the gain of each is seen.

    Attributes:
        names: (C,) the tasks first, in the evidence's order.
        metrics: (K, C).
        noise: (K, C), 0 where unknown.
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
        return cls(
            names,
            metrics,
            noise,
            groups.weights @ membership,
            groups.families,
            membership,
            groups.offsets,
            groups.aggregation == "worst family",
        )

    def objective(self, columns: np.ndarray) -> np.ndarray:
        """(...,) the objective, lower is better, of (..., C) column values."""
        if self.worst:
            return (columns @ self.membership.T - self.offsets).max(axis=-1)
        return columns @ self.weights


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

    A law that looks at how much a run trained predicts full runs, so it is judged by these alone. None where too few
    runs would be left to fit, or are there to judge by.

    Args:
        part: the regression.
        context: what it is told besides weights and metrics.
        weights: (K, m) mixtures in canonical run order.
        columns: their metrics.
        generator: draws the folds.
    """
    full = (
        np.isclose(context.tokens, 1.0, rtol=_ROUNDED) if part.reads_tokens else np.ones(len(weights), bool)
    )
    if full.sum() < _FEWEST_JUDGED:
        return None
    try:
        kept = kept_in_folds(part.make(context), weights, generator, FOLDS, part.repeats)
        laws = _fits(part, context, weights, columns, kept)
    except TooFewRuns:
        return None
    predicted = np.stack([believable(law.predict(weights)[0], columns.metrics) for law in laws])
    joined = joined_folds(predicted, kept, part.repeats)
    return Refits(
        tuple(laws), joined[:, full], columns.metrics[full], weights[full], 1 - part.repeats / len(kept)
    )


def fit(part: RegressionPart, context: FitContext, weights: np.ndarray, columns: Columns) -> Fitted:
    """The regression fitted to all runs.

    Raises:
        TooFewRuns, InvalidMetrics, InvalidSetting: as the regression.
        InvalidMetrics: a task for which the fitted law predicts no number, named.
    """
    law = part.make(context).fit(weights, columns.metrics, columns.noise)
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


def _fits(
    part: RegressionPart, context: FitContext, weights: np.ndarray, columns: Columns, kept: np.ndarray
) -> Sequence[Fitted]:
    regression = part.make(context)
    if isinstance(regression, Batched):
        return regression.refits(weights, columns.metrics, kept, columns.noise)
    return [
        part.make(replace(context, tokens=context.tokens[rows], rounds=context.rounds[rows])).fit(
            weights[rows], _varied(weights[rows], columns.metrics[rows], columns.metrics), columns.noise[rows]
        )
        for rows in kept
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
