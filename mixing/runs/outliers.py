"""Measurements that no mixture explains: of a run that diverged, or of an evaluation that went wrong.

How far a value lies from the others says little: the held-out slice of a domain that most runs hold is honestly far
out in the few that do not. So a value is set aside where both hold:

- it lies further beyond all others than these are apart (which only asks the question), and
- a Gaussian process of all others misses it by more than `FAR` times what it misses runs it has not seen by, each in
  units of how sure it is there. Where a mixture is unlike the others the process is unsure, and nothing is set aside;
nor is it, short of the absurd, where a run lacks a domain that all others hold.

The process has a constant, a linear part and a Matern 5/2 covariance over powers of the weights; of its lengths and
noises those are taken that miss the median run least when it is left out, which an outlier has no say in.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

FAR = 40.0
"""Usual misses (1.48 times their median). Of 10,000 values of `benchmarks/swarms` and RegMix none was off by 33."""
_FAR_AGAIN = 10.0
"""The same of the other measurements of a run of which one is off by `FAR`."""
_BEYOND = 20.0
FEWEST = 8
"""Runs below which nothing can be told of one of them."""
_MOST = 5
"""Of so many runs one may be set aside; where more lie apart they are no accident."""
_FLOOR, _POWER = 1e-4, 0.3  # of the features, as `mixing.laws.processes.gaussian_process` has them
_CONSTANT = 100.0
_LENGTHS = (0.5, 1.0, 2.0, 4.0)  # of the median distance of two runs
_NOISES = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Outlier:
    """A measurement that no mixture explains.

    Attributes:
        run: row of the table.
        column: of the table.
        value: what was measured.
        expected: by the other runs.
        misses: how many usual misses that is off.
    """

    run: int
    column: int
    value: float
    expected: float
    misses: float


def outliers(weights: np.ndarray, metrics: np.ndarray, tokens: np.ndarray) -> list[Outlier]:
    """Of every column.

    Args:
        weights: (K, m) mixtures.
        metrics: (K, T); NaN where a run was not measured.
        tokens: (K,) how much each run trained.
    """
    features = np.column_stack([(weights + _FLOOR) ** _POWER, np.log(tokens)])
    found: list[Outlier] = []
    for column, values in enumerate(metrics.T):
        measured = np.flatnonzero(np.isfinite(values))
        apart = measured[_apart(values[measured])]
        if not len(apart):
            continue
        others = np.setdiff1d(measured, apart)
        expected, misses = _missed(features[others], values[others], features[apart], values[apart])
        misses[_unlike(weights, values, apart, others)] = 0
        for run, usual, far in zip(apart.tolist(), expected.tolist(), misses.tolist(), strict=True):
            if far > _FAR_AGAIN:
                found.append(Outlier(run, column, float(values[run]), usual, far))
    lost = {one.run for one in found if one.misses > FAR}
    return [one for one in found if one.run in lost]


def _apart(values: np.ndarray) -> np.ndarray:
    """(K,) whether each of (K,) values is among a few further beyond all others than these are apart."""
    found = np.zeros(len(values), bool)
    if len(values) < FEWEST:
        return found
    for sign in (1.0, -1.0):
        order = np.argsort(sign * values, kind="stable")
        ordered = sign * values[order]
        gaps, widths = np.diff(ordered), ordered[:-1] - ordered[0]
        rest = np.arange(1, len(values))
        split = np.flatnonzero((gaps > widths) & (widths > 0) & (_MOST * (len(values) - rest) <= len(values)))
        if len(split):
            found[order[split[0] + 1 :]] = True
    return found


def _unlike(weights: np.ndarray, values: np.ndarray, apart: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) of which runs nothing is known, for they lack a domain that all others hold.

    Unless they are beyond `_BEYOND` times as far away as the others are apart, which no domain explains.
    """
    low, high = values[others].min(), values[others].max()
    beyond = np.maximum(values[apart] - high, low - values[apart]) / (high - low)
    return (weights[apart][:, (weights[others] > 0).all(axis=0)] == 0).any(axis=1) & (beyond < _BEYOND)


def _missed(
    features: np.ndarray, values: np.ndarray, new: np.ndarray, measured: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) what the runs predict of n others, and by how many usual misses that is off."""
    centre, level = features.mean(0), np.median(values)
    distances = cdist(features, features)
    usual = np.median(distances[distances > 0])
    inside, outside = (features - centre) / usual, (new - centre) / usual
    target = values - level
    best = (np.inf, np.zeros(len(new)), np.zeros(len(new)))
    for length in _LENGTHS:
        prior, across = _covariance(inside, inside, length), _covariance(outside, inside, length)
        alone = np.diagonal(_covariance(outside, outside, length))
        for noise in _NOISES:
            precision = np.linalg.inv(prior + noise * np.eye(len(values)))
            left_out = precision @ target / np.diagonal(precision)
            if (median := float(np.median(np.abs(left_out)))) >= best[0]:
                continue
            scale = 1.4826 * np.median(np.abs(left_out) * np.sqrt(np.diagonal(precision)))
            expected = level + across @ (precision @ target)
            unsure = alone + noise - np.einsum("nk,kl,nl->n", across, precision, across)
            best = median, expected, np.abs(measured - expected) / (np.sqrt(unsure) * scale)
    return best[1], best[2]


def _covariance(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    away = np.sqrt(5) * cdist(first, second) / length
    return _CONSTANT + first @ second.T + (1 + away + away**2 / 3) * np.exp(-away)
