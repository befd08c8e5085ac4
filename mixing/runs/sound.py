"""Runs as they are handed in, and everything of one that cannot be fitted, refused by name.

A metric that is missing or no finite number is a gap, not a fault. Text, a truth value, and a number that the
regression cannot take are faults.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real

import numpy as np

from mixing.domains import Domains, Mixture
from mixing.errors import DuplicateRun, InvalidMetrics, MixingError, as_number, shown
from mixing.objective import ObjectiveSpec
from mixing.sense import unclear_direction

RENORMALIZED = 0.01
"""Weights whose sum is further than this from 1 are not rounded but wrong."""
_ROUNDING = 1e-9
ALIKE = 1.05
"""Sizes and lengths whose ratio is no more are one: of whole batches, or counted by another program."""


def alike(ratio: float) -> bool:
    """Whether two sizes, or two lengths, of this ratio are one."""
    return 1 / ALIKE <= ratio <= ALIKE


@dataclass(frozen=True)
class RunEvidence:
    """What one proxy run says.

    Attributes:
        id: names the run in messages; nothing is ordered by it.
        mixture: weights by domain, as they were trained; every domain of the set, 0 where it has none.
        metrics: `{task: value}` in the task's own unit. A task that is missing, or is no finite number, was not
            measured: the run then counts for the others.
        noise: `{task: standard deviation of the measurement}` where known, in the same unit.
        seed: of the training run, where known; tells a replicate from a run given twice.
        tokens: how much it trained, in units of a full proxy run.
        size: parameters of its model, embeddings not counted, in units of a proxy's.
        round: of the swarm it was sampled in, from 0.
        older: whether it was trained for an older revision.
        doubt: how far its metrics may be off beside their noise because it was trained otherwise (with another
            seed), as a share of each metric's standard deviation over the runs.
        requested: the mixture that was asked for, where the whole rows a run trains came to another.

    >>> run = RunEvidence("run-0", {"web": 0.7, "code": 0.3}, {"humaneval": 1.41, "reading": 1.02})
    >>> sorted(run.metrics)
    ['humaneval', 'reading']
    """

    id: str
    mixture: Mapping[str, float]
    metrics: Mapping[str, float]
    noise: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    tokens: float = 1.0
    size: float = 1.0
    round: int = 0
    older: bool = False
    doubt: float = 0.0
    requested: Mapping[str, float] | None = None

    def carried(self, carry: Callable[[Mapping[str, float]], Mapping[str, float]]) -> "RunEvidence":
        """The run over other domains."""
        requested = None if self.requested is None else carry(self.requested)
        return replace(self, mixture=carry(self.mixture), requested=requested)

    @property
    def rounding(self) -> float:
        """L1 distance between what was trained and what was asked for."""
        asked = self.mixture if self.requested is None else self.requested
        names = {*self.mixture, *asked}
        return math.fsum(abs(self.mixture.get(name, 0.0) - asked.get(name, 0.0)) for name in names)

    @cached_property
    def measured(self) -> dict[str, float]:
        """The metrics that are finite numbers."""
        return {task: value for task, value in self.metrics.items() if math.isfinite(as_number(value))}


@dataclass(frozen=True)
class DroppedRun:
    """A run that was left out because the caller asked for that, and why."""

    id: str
    reason: str


def sound_runs(
    domains: Domains, runs: Sequence[RunEvidence], spec: ObjectiveSpec, positive: bool, drop_faulty: bool
) -> tuple[list[tuple[RunEvidence, np.ndarray]], tuple[DroppedRun, ...]]:
    """The runs that are kept, each with its (m,) weights as given, and those that are not."""
    seen, kept, dropped = SeenRuns(), [], []
    for run in runs:
        try:
            row = _aligned(run, domains)
            _check_metrics(run, spec, positive)
            if (other := seen.add(run)) is not None:
                dropped.append(
                    DroppedRun(run.id, f"it trained the very rows of run {other!r}, and counts once")
                )
                continue
            if not run.older and not any(task in run.measured for task in spec.tasks):
                dropped.append(DroppedRun(run.id, f"run {run.id!r} has no metric of the objective"))
                continue
        except MixingError as fault:
            if not drop_faulty:
                raise
            dropped.append(DroppedRun(run.id, str(fault)))
        else:
            kept.append((run, row))
    return kept, tuple(dropped)


def _aligned(run: RunEvidence, domains: Domains) -> np.ndarray:
    """(m,) weights, not yet divided by their sum."""
    try:
        tolerance = RENORMALIZED + _ROUNDING
        return Mixture.of(run.mixture, tolerance, domains.names).align(domains.names)
    except MixingError as error:
        raise type(error)(
            f"in the mixture of run {run.id!r}: {error}", field=error.field, names=[run.id, *error.names]
        ) from error


def check_measured(spec: ObjectiveSpec, runs: Sequence[RunEvidence]) -> None:
    """Refuse an objective that names a task no run has, however many runs may be dropped."""
    measured = {task for run in runs for task in run.measured}
    if runs and (empty := sorted(set(spec.tasks) - measured)):
        raise InvalidMetrics(
            f"no run has a metric for {', '.join(empty)}: an empty column; take it out of the objective, or"
            f" evaluate it. There are {', '.join(sorted(measured)) or 'no metrics at all'}",
            field="metrics",
            names=empty,
        )


def _check_metrics(run: RunEvidence, spec: ObjectiveSpec, positive: bool) -> None:
    for task in sorted(spec.tasks):
        if why := _fault(run, task, spec, positive):
            raise InvalidMetrics(why, field="metrics", names=[run.id, task])


def check_varies(task: str, runs: Sequence[RunEvidence]) -> None:
    """Refuse a task of the objective that is the same in every run."""
    if why := _constant(task, runs):
        raise InvalidMetrics(why, field="metrics", names=[task])


def unfit(
    task: str, runs: Sequence[RunEvidence], spec: ObjectiveSpec, positive: bool, needed: int
) -> str | None:
    """Why a watched task cannot be fitted, or None."""
    if spec.directions.get(task) == "higher" and task not in spec.turned:
        return f"task {task!r} is better when higher; say how it is turned"
    if why := unclear_direction(spec, task, values_of(task, runs)):
        return why
    faults = (why for run in runs if (why := _fault(run, task, spec, positive)))
    if why := next(faults, None) or _constant(task, runs):
        return why
    if (count := len(values_of(task, runs))) < min(needed, len(runs)):
        return f"only {count} of {len(runs)} runs measured task {task!r}, and the regression needs {needed}"
    return None


def _fault(run: RunEvidence, task: str, spec: ObjectiveSpec, positive: bool) -> str | None:
    """Why a run's metric cannot be fitted, or None."""
    value = run.metrics.get(task)
    if value is None or (isinstance(value, Real) and not math.isfinite(value)):
        return None  # not measured
    given = f"run {run.id!r} has {shown(value)} for task {task!r}"
    if math.isnan(as_number(value)):
        return f"{given}; a metric must be a number"
    noise = run.noise.get(task, 0.0)
    unknown = isinstance(noise, float) and math.isnan(noise)
    if not (unknown or as_number(noise) >= 0):
        return f"run {run.id!r} states a noise of {shown(noise)} for task {task!r}; it must be a number of at least 0"
    if spec.turned.get(task) == "error rate" and not 0 <= value <= 1:
        return f"{given}; to become an error rate it must be a share of 1"
    if positive and not spec.lower_is_better(task, value) > 0:
        entered = ", which enters the objective as a value not above 0" if task in spec.turned else ""
        return f"{given}{entered}; the regression needs metrics finite and above 0"
    return None


def values_of(task: str, runs: Sequence[RunEvidence]) -> list[float]:
    """What was measured of a task, in whatever direction."""
    return [run.metrics[task] for run in runs if task in run.measured]


def _constant(task: str, runs: Sequence[RunEvidence]) -> str | None:
    if len(set(values_of(task, runs))) > 1:
        return None
    return f"task {task!r} has the same metric in every run, so nothing can be learned from it; leave it out"


class SeenRuns:
    """The runs so far."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._measured: dict[object, list[RunEvidence]] = {}

    def add(self, run: "RunEvidence") -> str | None:
        """Take a run in; answers the id of another of ours that trained the very same rows.

        Such runs are one, honestly come by: those of a swarm share their seed, short ones have few rows, and where
        caps leave little room two draws are one mixture. Of a run of somebody's, which has nothing ``requested``,
        it is told from a mistake by its seed alone.

        Raises:
            DuplicateRun: its id, or the run itself, was given before.
        """
        if run.id in self._ids:
            raise DuplicateRun(f"run {run.id!r} is given twice", field="runs", names=[run.id])
        said = (tuple(sorted(run.mixture.items())), tuple(sorted(run.metrics.items())))
        for other in self._measured.get(said, ()):
            if run.seed is not None and other.seed is not None and run.seed != other.seed:
                continue
            if run.requested is not None and other.requested is not None:
                return other.id
            raise DuplicateRun(
                f"runs {other.id!r} and {run.id!r} have the same mixture and the same metrics to the last bit, so"
                " they are one run given twice; leave one out, or state the seeds if they are two",
                field="runs",
                names=[other.id, run.id],
            )
        self._ids.add(run.id)
        self._measured.setdefault(said, []).append(run)
        return None
