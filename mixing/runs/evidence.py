"""Runs joined into one table, by name and id, with everything that cannot be fitted refused by name.

What is refused can be left out instead with `drop_faulty`: the runs dropped are then counted and named in the
answer. Weights that sum to within 1% of 1, as published tables round them, are divided by their sum and noted.

A run given twice under two ids, with the same mixture and the same metrics to the last bit, is refused like one
given twice under one id: measured again it would have differed, so it is the same run submitted again, which would
count double and stand on both sides of every fold. Replicates are welcome; runs of two stated seeds are
never taken for one.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mixing.domains import SUM_TOLERANCE, Domains, Mixture
from mixing.errors import InvalidMetrics, MixingError, TooFewRuns, as_number, shown
from mixing.objective import Groups, ObjectiveSpec, groups
from mixing.runs.seen import SeenRuns
from mixing.runs.table import RunTable

RENORMALIZED = 0.01
"""Weights whose sum is further than this from 1 are not rounded but wrong."""
_ROUNDING = 1e-9
_MIXTURE_DIGITS = 9
"""Mixtures alike to so many digits are one mixture, written down by two programs."""


@dataclass(frozen=True)
class RunEvidence:
    """What one proxy run says.

    Attributes:
        id: names the run in messages; nothing is ordered by it.
        mixture: weights by domain, as they were trained; every domain of the set, 0 where it has none.
        metrics: `{task: value}`, BPB where nothing else is said.
        noise: `{task: standard deviation of the measurement}` where known, in the same unit.
        seed: of the training run, where known; tells a replicate from a run given twice.
        tokens: how much it trained, in units of a full proxy run.
        round: of the swarm it was sampled in, from 0.
        older: whether it was trained for an older revision; it may then lack tasks that are measured now, and counts
            for the others.
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


@dataclass(frozen=True)
class DroppedRun:
    """A run that was left out because the caller asked for that, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Evidence:
    """The runs in one table, and what was said on the way there.

    The order of runs follows from their mixtures and metrics, not from their ids, so that two databases
    with the same runs under different ids give the same folds, resamples and answer.

    Attributes:
        table: K runs. Its columns are the T tasks in sorted order, every one turned where the objective turns it, and
            behind them the groups of a law of coarser grain; so the gain of each task is seen whatever the
            granularity is. What may be off in an older run (its `doubt`) is counted into the noise.
        tasks: (T,) names.
        groups: the objective as it is read from the columns.
        noise: (T,) median standard deviation of a measurement; NaN where not every run that was measured states one.
        left_out: `{watched task: why it could not be fitted}`.
        dropped: the runs left out, in the order given; empty unless asked for.
        notes: what was changed on the way in, in plain words.
        without_rows: `{domain: runs that were to read it and got no row of it}`.
    """

    table: RunTable
    tasks: tuple[str, ...]
    groups: Groups
    noise: np.ndarray
    left_out: Mapping[str, str]
    dropped: tuple[DroppedRun, ...]
    notes: tuple[str, ...]
    without_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def weights(self) -> np.ndarray:
        """(K, m) the mixtures."""
        return self.table.weights

    @property
    def metrics(self) -> np.ndarray:
        """(K, T) what was measured of each task."""
        return self.table.metrics[:, : len(self.tasks)]

    @property
    def objective(self) -> np.ndarray:
        """(T,) weights of the tasks, summing to 1; 0 for a task that is only watched."""
        return self.groups.column_weights @ self.groups.matrix


@dataclass(frozen=True)
class Needs:
    """What a regression needs of the runs.

    Attributes:
        runs: different mixtures. Replicates of one count once: they tell the noise, not another parameter.
        alternatives: `{name: different mixtures it needs}` of what to offer where these are too few.
        positive: whether metrics must be above 0, as for laws with an exponential or a power.
        guarded: tasks that are fitted though the objective does not count them and older runs may lack them.
    """

    runs: int
    alternatives: Mapping[str, int] = field(default_factory=dict)
    positive: bool = True
    guarded: Collection[str] = ()


def gather(
    domains: Domains,
    runs: Sequence[RunEvidence],
    objective: Mapping[str, float] | ObjectiveSpec,
    needs: Needs,
    *,
    drop_faulty: bool = False,
) -> Evidence:
    """Join the runs.

    Tasks of the objective must be sound in every run. Other tasks the runs measured are fitted too, so that
    their gain is seen; one of these that cannot be fitted is left out and says why, and those that older runs did not
    measure are named in a note.

    Args:
        domains: m domains, which every mixture must be over.
        runs: in any order.
        objective: what the mixture is for; `{task: weight}` where every task is better when lower.
        needs: of the regression.
        drop_faulty: leave out faulty runs (duplicates, bad weights, bad metrics of the objective), and say so,
            where they would be refused.

    Raises:
        DuplicateRun: two runs of one id, or one run under two ids.
        TooFewRuns: fewer different mixtures than needed.
        UnknownDomain, MissingDomain: a run's mixture is not over these domains.
        InvalidWeights: a run's weights do not sum to 1 within 1%, or are negative or not finite.
        InvalidMetrics: a metric of the objective that is missing, not finite, not positive, no share of 1 where
            it is to be turned into an error rate, or the same in every run.
    """
    spec = ObjectiveSpec.of(objective)
    _check_measured(spec, runs)
    sound, dropped = _sound(domains, runs, spec, needs.positive, drop_faulty)
    kept = [run for run, _ in sound]
    given = np.array([row for _, row in sound]).reshape(len(sound), len(domains))
    sums = given.sum(axis=1, keepdims=True)
    weights = np.where(np.abs(sums - 1) > SUM_TOLERANCE, given / sums, given)
    _check_enough(weights, kept, len(runs), needs, domains)
    for task in sorted(spec.tasks):
        _check_varies(task, kept)
    watched, lacking = _watched(kept, spec, needs.guarded)
    left_out = {task: why for task in watched if (why := _unfit(task, kept, spec, needs.positive))}
    tasks = tuple(sorted({*spec.tasks, *watched} - set(left_out)))
    notes = _notes(sums[:, 0], dropped, lacking, spec, tasks)
    table = _table(domains, kept, weights, spec, tasks)
    return Evidence(*table, left_out, dropped, tuple(notes), _without_rows(kept))


def _without_rows(runs: Sequence[RunEvidence]) -> dict[str, int]:
    asked = ((name, run) for run in runs for name, weight in (run.requested or {}).items() if weight > 0)
    return dict(sorted(Counter(name for name, run in asked if not run.mixture.get(name)).items()))


def _table(
    domains: Domains,
    runs: Sequence[RunEvidence],
    weights: np.ndarray,
    spec: ObjectiveSpec,
    tasks: tuple[str, ...],
) -> tuple[RunTable, tuple[str, ...], Groups, np.ndarray]:
    """The first four attributes of the evidence."""
    metrics = np.array(
        [
            [spec.lower_is_better(task, float(run.metrics.get(task, math.nan))) for task in tasks]
            for run in runs
        ]
    )
    measured = ~np.isnan(metrics)
    stated = np.array([[float(run.noise.get(task, math.nan)) for task in tasks] for run in runs])
    known = np.all((np.isfinite(stated) & (stated >= 0)) | ~measured, axis=0)
    noise = np.where(known & measured, stated, 0.0)
    order = np.lexsort(np.concatenate([metrics, weights, noise], axis=1).T[::-1])
    metrics, noise = metrics[order], noise[order]
    columns = groups(spec, tasks, metrics).beside(tasks)
    used = columns.matrix != 0
    # The noise of tasks in one group is taken as independent; it is known where that of all of them is.
    joint = np.where(~(used & ~known).any(1), np.sqrt(np.square(noise) @ np.square(columns.matrix).T), 0.0)
    values = np.nan_to_num(metrics) @ columns.matrix.T
    values[np.isnan(metrics).astype(float) @ used.T > 0] = np.nan
    doubt = np.array([run.doubt for run in runs])[order]
    table = RunTable(
        domains=domains.names,
        names=columns.names,
        weights=weights[order],
        metrics=values,
        noise=np.hypot(joint, doubt[:, None] * np.nanstd(values, axis=0)),
        tokens=np.array([run.tokens for run in runs])[order],
        rounds=np.array([run.round for run in runs])[order],
        older=np.array([run.older for run in runs])[order],
        off=np.zeros(len(runs)),
        rounding=np.array([run.rounding for run in runs])[order],
    )
    return table, tasks, columns, np.where(known, np.median(noise, axis=0), np.nan)


def _sound(
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
        except MixingError as fault:
            if not drop_faulty:
                raise
            dropped.append(DroppedRun(run.id, str(fault)))
        else:
            kept.append((run, row))
    return kept, tuple(dropped)


def _watched(
    runs: Sequence[RunEvidence], spec: ObjectiveSpec, guarded: Collection[str]
) -> tuple[list[str], list[str]]:
    """Tasks that the objective does not count: those to fit, and those that not all older runs measured.

    Runs are judged by what all of them measured, so one that is only watched must not leave older ones out.
    """
    # What only older runs measured is no longer asked about, such as the held-out slice of a domain taken out.
    asking = [run for run in runs if not run.older] or runs
    watched = sorted({task for run in asking for task in run.metrics} - set(spec.tasks))
    older = [run for run in runs if run.older]
    lacking = [
        task for task in watched if task not in guarded and any(task not in run.metrics for run in older)
    ]
    return [task for task in watched if task not in lacking], lacking


def _notes(
    sums: np.ndarray,
    dropped: Sequence[DroppedRun],
    lacking: Sequence[str],
    spec: ObjectiveSpec,
    tasks: Sequence[str],
) -> Iterator[str]:
    if len(off := sums[np.abs(sums - 1) > SUM_TOLERANCE]):
        yield (
            f"The weights of {len(off)} of {len(sums)} runs summed to between {off.min():.4f} and {off.max():.4f}"
            " and were divided by their sum."
        )
    if dropped:
        named = ", ".join(run.id for run in dropped)
        yield f"{len(dropped)} of {len(sums) + len(dropped)} runs were left out: {named}."
    if lacking:
        yield f"Not in the objective and not measured on all older runs, so not fitted: {', '.join(lacking)}."
    for task in tasks:
        if turn := spec.turned.get(task):
            formula = "1 - value" if turn == "error rate" else "-value"
            yield f"Task {task} is better when higher and enters as {formula}."


def _aligned(run: RunEvidence, domains: Domains) -> np.ndarray:
    """(m,) weights, not yet divided by their sum."""
    try:
        tolerance = RENORMALIZED + _ROUNDING
        return Mixture.of(run.mixture, tolerance, domains.names).align(domains.names)
    except MixingError as error:
        raise type(error)(
            f"in the mixture of run {run.id!r}: {error}", field=error.field, names=[run.id, *error.names]
        ) from error


def _check_measured(spec: ObjectiveSpec, runs: Sequence[RunEvidence]) -> None:
    """Refuse an objective that names a task no run has, however many runs may be dropped."""
    measured = {task for run in runs for task in run.metrics}
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


def _check_varies(task: str, runs: Sequence[RunEvidence]) -> None:
    if why := _constant(task, runs):
        raise InvalidMetrics(why, field="metrics", names=[task])


def _unfit(task: str, runs: Sequence[RunEvidence], spec: ObjectiveSpec, positive: bool) -> str | None:
    """Why a watched task cannot be fitted, or None."""
    if spec.directions.get(task) == "higher" and task not in spec.turned:
        return f"task {task!r} is better when higher; say how it is turned"
    faults = (why for run in runs if (why := _fault(run, task, spec, positive)))
    return next(faults, None) or _constant(task, runs)


def _fault(run: RunEvidence, task: str, spec: ObjectiveSpec, positive: bool) -> str | None:
    """Why a run's metric cannot be fitted, or None."""
    value = run.metrics.get(task)
    if value is None and run.older:
        return None
    if value is None:
        return f"run {run.id!r} has no metric for task {task!r}; evaluate it again or leave the run out"
    given = f"run {run.id!r} has {shown(value)} for task {task!r}"
    if not math.isfinite(as_number(value)):
        return f"{given}; a metric must be a finite number"
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


def _constant(task: str, runs: Sequence[RunEvidence]) -> str | None:
    if len({run.metrics[task] for run in runs if task in run.metrics}) > 1:
        return None
    return f"task {task!r} has the same metric in every run, so nothing can be learned from it; leave it out"


def _check_enough(
    weights: np.ndarray, runs: Sequence[RunEvidence], given: int, needs: Needs, domains: Domains
) -> None:
    # The same mixture trained for longer is another run.
    trained = np.column_stack([weights, [run.tokens for run in runs]])
    different = len(np.unique(np.round(trained, _MIXTURE_DIGITS), axis=0))
    if different >= needs.runs:
        return
    possible = [name for name, least in sorted(needs.alternatives.items()) if least <= different]
    counted = f"{given} runs"
    if len(runs) < given:
        counted += f", {len(runs)} of them sound,"
    kind = ""
    if different < len(runs):
        counted += f" of {different} different mixture{'' if different == 1 else 's'}"
        kind = " different ones"
    offer = f"; so few still do for {', '.join(possible)}" if possible else ""
    raise TooFewRuns(
        f"{counted} are too few: the regression over {len(domains)} domains needs {needs.runs}{kind}{offer}",
        needed=needs.runs,
        given=different,
        names=possible,
    )
