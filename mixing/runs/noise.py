"""Signal and noise of tasks (arXiv 2508.13144): which tasks tell mixtures apart at the size they are measured at.

Both are relative to the task's mean: the signal is the range of the metric over the models, the noise its standard
deviation over the last n checkpoints of one training run. A task whose signal is no larger than the range that noise
alone would show over so many models tells nothing and is better dropped; up to twice that it is worth a warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from mixing.errors import InvalidMetrics, TooFewRuns

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
