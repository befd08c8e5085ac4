"""Which law tells the target: the one that predicts the largest scale there is from the others.

The proxies' law carried by an affine map (`mixing.laws.transfer`) and the joint laws of mixture, parameters and
tokens (`mixing.laws.scaling`) are each fitted without the anchors of the most compute, and judged by these: by the
root mean square error of what mixtures differ by there, which is what a gain is. A joint law that is better by a
tenth tells what each task's gains are worth at the target: the slope of its predictions there on the proxies' law's
over the swarm's mixtures. The mixture is still solved for by the proxies' law, each task weighing so much.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mixing.laws.scaling import FORMS, fit_scaling_law
from mixing.laws.transfer import CARRIED, Anchors, Transfer, transfer
from mixing.runs.table import RunTable

_WORTH = 0.1
"""Share of the error that another law must save: of a few anchors less is an accident."""
_MOST_WORK = 1500
"""Of tasks times domains, above which the joint laws take minutes and are not tried."""

Scale = tuple[float, float]


def chosen(
    target: Scale,
    anchors: Sequence[Anchors],
    predicted: Sequence[np.ndarray],
    table: RunTable,
    at_runs: np.ndarray,
) -> Transfer:
    """What the proxies' gains are worth at the target, by the law that extrapolates best.

    With fewer than two other scales none can be left out, and the carried law is taken as it is.

    Args:
        target: parameters and tokens, in units of the proxies'.
        anchors: one a scale.
        predicted: for each the (n, C) predictions of its mixtures by the law of the proxies.
        table: the proxies' K runs.
        at_runs: (K, C) what that law predicts of them.
    """
    spreads = np.nanstd(table.metrics, axis=0)
    carried = transfer(target, anchors, predicted, spreads)
    parts = [(one, guess) for one, guess in zip(anchors, predicted, strict=True) if one.is_told_apart]
    tables = [table.metrics, *(one.metrics for one, _ in parts)]
    whole = np.all([np.isfinite(values).all(axis=0) for values in tables], axis=0)
    if len(parts) < 2 or not whole.any() or whole.sum() * len(table.domains) > _MOST_WORK:
        return carried
    parts.sort(key=lambda part: part[0].scale[0] * part[0].scale[1])
    largest, guess = parts[-1]
    fewer = transfer(
        largest.scale, [one for one, _ in parts[:-1]], [known for _, known in parts[:-1]], spreads
    )
    errors = {CARRIED: _error(fewer.factors * guess, largest.metrics, whole)}
    for form in FORMS:
        said = np.full(largest.metrics.shape, np.nan)
        law = fit_scaling_law(form, *_runs(table, [one for one, _ in parts[:-1]], whole))
        said[:, whole] = law.at(*largest.scale).mean(largest.weights)
        errors[form] = _error(said, largest.metrics, whole)
    best = min(errors, key=lambda name: errors[name])
    if best == CARRIED or errors[best] > (1 - _WORTH) * errors[CARRIED]:
        return replace(carried, errors=errors)
    law = fit_scaling_law(best, *_runs(table, [one for one, _ in parts], whole)).at(*target)
    there, here = law.mean(table.weights), at_runs[:, whole] - at_runs[:, whole].mean(0)
    factors = carried.factors.copy()
    slopes = (here * there).sum(0) / np.maximum(np.square(here).sum(0), 1e-300)
    factors[whole] = np.where(slopes > 0, slopes, factors[whole])
    return replace(carried, factors=factors, errors=errors, law=best)


def _runs(
    table: RunTable, anchors: Sequence[Anchors], columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixtures, metrics of some columns, and scales of the proxies and of anchors, one below the other."""
    scales = [np.ones((len(table), 2)), *(np.tile(one.scale, (len(one.weights), 1)) for one in anchors)]
    return (
        np.concatenate([table.weights, *(one.weights for one in anchors)]),
        np.concatenate([table.metrics, *(one.metrics for one in anchors)])[:, columns],
        np.concatenate(scales),
    )


def _error(said: np.ndarray, measured: np.ndarray, columns: np.ndarray) -> float:
    """Root mean square error of what mixtures differ by, of each column's spread there."""
    away = (said - said.mean(0) - (measured - measured.mean(0)))[:, columns]
    return float(np.sqrt(np.square(away / np.maximum(measured[:, columns].std(0), 1e-300)).mean()))
