"""Signal and noise of tasks (arXiv 2508.13144), and measurements that are neither: that no mixture explains.

Which tasks tell mixtures apart at the size they are measured at? Both are relative to the task's mean: the signal is
the range of the metric over the models, the noise its standard deviation over the last n checkpoints of one training
run. A task whose signal is no larger than the range that noise
alone would show over so many models tells nothing and is better dropped; up to twice that it is worth a warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.integrate import quad
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from mixing.errors import InvalidMetrics, TooFewRuns
from mixing.inverses import floored_inverse

Advice = Literal["keep", "warn", "drop"]
WARNED_BELOW = 2.0
"""A task is warned about up to this many times the range that noise alone would show."""


@dataclass(frozen=True)
class TaskSignal:
    """What a task's metric says of the models it was measured on.

    Attributes:
        task: its name.
        signal: (max - min) / mean over the models.
        noise: standard deviation over checkpoints / mean.
        ratio: signal / noise; infinite without noise, 0 without signal.
        advice: what to do with the task in an objective.
    """

    task: str
    signal: float
    noise: float
    ratio: float
    advice: Advice


def rank_tasks(tasks: Sequence[str], metrics: np.ndarray, deviations: np.ndarray) -> tuple[TaskSignal, ...]:
    """The tasks, those that tell models apart best first; equal ones by name.

    Args:
        tasks: (T,) names.
        metrics: (J, T) one value of each of J >= 2 models, such as the runs of a swarm.
        deviations: (T,) standard deviation of one such value, in the metric's unit.

    Raises:
        InvalidMetrics: values that are not finite, a task whose mean is not above 0, or a negative deviation.
        TooFewRuns: one model; nothing can be told apart.
    """
    models = len(metrics)
    if models < 2:
        raise TooFewRuns(f"{models} models have no signal; it takes 2", needed=2, given=models)
    means = metrics.mean(axis=0)
    faulty = ~(np.isfinite(metrics).all(axis=0) & (means > 0) & np.isfinite(deviations) & (deviations >= 0))
    _refuse(tasks, faulty)
    alone = range_of_noise(models)
    rows = [
        TaskSignal(task, float(size), float(spread), ratio := _ratio(size, spread), _advice(ratio, alone))
        for task, size, spread in zip(tasks, signal(metrics), deviations / means, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.ratio, row.task)))


def signal(metrics: np.ndarray) -> np.ndarray:
    """(T,) max_jk |m_j - m_k| / mean(m) over the J models of (J, T) metrics.

    Raises:
        InvalidMetrics: a mean that is not above 0, relative to which nothing can be stated.
    """
    means = metrics.mean(axis=0)
    if not (means > 0).all():
        raise InvalidMetrics(
            "signal and noise are relative to a task's mean, which must be above 0; shift or turn the metric",
            field="metrics",
        )
    return np.ptp(metrics, axis=0) / means


def range_of_noise(models: int) -> float:
    """Expected range of so many independent standard normal numbers: the ratio a task shows by noise alone.

    It is the integral of 1 - F^J - (1 - F)^J over the real line, F the normal distribution function.
    """
    area, _ = quad(lambda x: 1 - ndtr(x) ** models - ndtr(-x) ** models, 0, 40)
    return 2 * area


def _ratio(size: float, spread: float) -> float:
    if size == 0:
        return 0.0
    return float(size / spread) if spread > 0 else float("inf")


def _advice(ratio: float, alone: float) -> Advice:
    if ratio <= alone:
        return "drop"
    return "warn" if ratio <= WARNED_BELOW * alone else "keep"


def _refuse(tasks: Sequence[str], faulty: np.ndarray) -> None:
    if names := [task for task, bad in zip(tasks, faulty, strict=True) if bad]:
        raise InvalidMetrics(
            f"no signal or noise can be told of {', '.join(names)}: values must be finite, above 0 on average, and"
            " their deviation known",
            field="metrics",
            names=names,
        )


# Measurements that no mixture explains: of a run that diverged, or of an evaluation that went wrong.
#
# How far a value lies from the others says little: the held-out slice of a domain that most runs hold is honestly far
# out in the few that do not. So a value is set aside where both hold:
#
# - it lies further beyond all others than these are apart (which only asks the question), and
# - a Gaussian process of all others misses it by more than `FAR` times what it misses runs it has not seen by, each
#   in units of how sure it is there. Where a mixture is unlike the others the process is unsure, and nothing is set
#   aside; nor is it, short of the absurd, where a run lacks a domain that all others hold.
#
# The process has a constant, a linear part and a Matern 5/2 covariance over powers of the weights; of its lengths and
# noises those are taken that miss the median run least when it is left out, which an outlier has no say in.

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
    usual = np.median(distances[distances > 0]) if distances.any() else 1.0
    inside, outside = (features - centre) / usual, (new - centre) / usual
    target = values - level
    best = (np.inf, np.zeros(len(new)), np.zeros(len(new)))
    for length in _LENGTHS:
        prior, across = _covariance(inside, inside, length), _covariance(outside, inside, length)
        alone = np.diagonal(_covariance(outside, outside, length))
        for noise in _NOISES:
            precision = floored_inverse(prior + noise * np.eye(len(values)))
            left_out = precision @ target / np.diagonal(precision)
            if (median := float(np.median(np.abs(left_out)))) >= best[0]:
                continue
            scale = 1.4826 * np.median(np.abs(left_out) * np.sqrt(np.diagonal(precision)))
            expected = level + across @ (precision @ target)
            unsure = alone + noise - np.einsum("nk,kl,nl->n", across, precision, across)
            best = (
                median,
                expected,
                np.abs(measured - expected) / (np.sqrt(np.maximum(unsure, noise)) * scale),
            )
    return best[1], best[2]


def _covariance(first: np.ndarray, second: np.ndarray, length: float) -> np.ndarray:
    away = np.sqrt(5) * cdist(first, second) / length
    return _CONSTANT + first @ second.T + (1 + away + away**2 / 3) * np.exp(-away)
