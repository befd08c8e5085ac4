"""Runs joined into arrays, by name and id, with everything that cannot be fitted refused by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixing.domains import Domains
from mixing.errors import InvalidMetrics, MixingError, TooFewRuns
from mixing.mixture import Mixture
from mixing.optimization.problem import normalized


@dataclass(frozen=True)
class RunEvidence:
    """What one proxy run says.

    Attributes:
        id: names the run in messages; nothing is ordered by it.
        mixture: weights by domain; every domain of the set, 0 where it has none.
        metrics: `{task: BPB}`, positive, lower is better.
        noise: `{task: standard deviation of the measurement}` where known, in the same unit.
    """

    id: str
    mixture: Mixture
    metrics: Mapping[str, float]
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """K runs over m domains and T tasks, domains and tasks in sorted order.

    The order of runs follows from their mixtures and metrics, not from their ids, so that two databases
    with the same runs under different ids give the same folds, resamples and answer.

    Attributes:
        weights: (K, m).
        tasks: (T,) names.
        metrics: (K, T).
        noise: (K, T) standard deviations, 0 where unknown.
        noise_known: (T,) whether every run states its noise.
        objective: (T,) weights of the tasks, summing to 1; 0 for a task that is only watched.
        left_out: `{watched task: why it could not be fitted}`.
    """

    weights: np.ndarray
    tasks: tuple[str, ...]
    metrics: np.ndarray
    noise: np.ndarray
    noise_known: np.ndarray
    objective: np.ndarray
    left_out: Mapping[str, str]


def gather(
    domains: Domains, runs: Sequence[RunEvidence], objective: Mapping[str, float], needed: int
) -> Evidence:
    """Join the runs.

    Tasks of the objective must be sound in every run. Other tasks the runs measured are fitted too, so that
    their gain is seen; one of these that cannot be fitted is left out and says why.

    Raises:
        TooFewRuns: fewer than `needed` runs.
        UnknownDomain, MissingDomain: a run's mixture is not over these domains.
        InvalidWeights: the objective's weights.
        InvalidMetrics: two runs of one id, or a metric of the objective that is missing, not finite, not
            positive, or the same in every run.
    """
    if len(runs) < needed:
        raise TooFewRuns(
            f"{len(runs)} runs are too few: the law over {len(domains)} domains needs {needed}",
            needed=needed,
            given=len(runs),
        )
    _check_ids(runs)
    counted = tuple(sorted(objective))
    normalized(np.array([float(objective[task]) for task in counted]))
    for task in counted:
        if fault := _fault(task, runs):
            raise fault
    watched = sorted({task for run in runs for task in run.metrics} - set(counted))
    faults = {task: str(fault) for task in watched if (fault := _fault(task, runs))}
    tasks = tuple(sorted({*counted, *watched} - set(faults)))
    return _arrays(domains, runs, objective, tasks, faults)


def _arrays(
    domains: Domains,
    runs: Sequence[RunEvidence],
    objective: Mapping[str, float],
    tasks: tuple[str, ...],
    left_out: Mapping[str, str],
) -> Evidence:
    weights = np.array([_aligned(run, domains) for run in runs])
    metrics = np.array([[float(run.metrics[task]) for task in tasks] for run in runs])
    noise = np.array([[float(run.noise.get(task, math.nan)) for task in tasks] for run in runs])
    known = np.all(np.isfinite(noise) & (noise >= 0), axis=0)
    order = np.lexsort(np.concatenate([metrics, weights], axis=1).T[::-1])
    return Evidence(
        weights=weights[order],
        tasks=tasks,
        metrics=metrics[order],
        noise=np.where(known, noise, 0.0)[order],
        noise_known=known,
        objective=normalized(np.array([float(objective.get(task, 0.0)) for task in tasks])),
        left_out=left_out,
    )


def _aligned(run: RunEvidence, domains: Domains) -> np.ndarray:
    try:
        return run.mixture.align(domains.names)
    except MixingError as error:
        error.add_note(f"in the mixture of run {run.id!r}")
        raise


def _check_ids(runs: Sequence[RunEvidence]) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.id in seen:
            raise InvalidMetrics(f"run {run.id!r} is given twice", field="runs", names=[run.id])
        seen.add(run.id)


def _fault(task: str, runs: Sequence[RunEvidence]) -> InvalidMetrics | None:
    """Why a task cannot be fitted, or None."""
    for run in runs:
        value = run.metrics.get(task)
        if value is None:
            return InvalidMetrics(
                f"run {run.id!r} has no metric for task {task!r}; evaluate it again or leave the run out",
                field="metrics",
                names=[run.id, task],
            )
        if not (math.isfinite(value) and value > 0):
            return InvalidMetrics(
                f"run {run.id!r} has {value} for task {task!r}; a metric must be finite and above 0",
                field="metrics",
                names=[run.id, task],
            )
    if len({run.metrics[task] for run in runs}) == 1:
        return InvalidMetrics(
            f"task {task!r} has the same metric in every run, so nothing can be learned from it; leave it out",
            field="metrics",
            names=[task],
        )
    return None
