"""Runs joined into one table, by name and id, with everything that cannot be fitted refused by name.

What is refused can be left out instead with `drop_faulty`: the runs dropped are then counted and named in the
answer. A metric that is missing, no finite number, or that no mixture explains (`mixing.runs.noise`) is a gap: the
task is fitted to the other runs, and the answer names the run. Weights that sum to within 1% of 1, as published
tables round them, are divided by their sum and noted.

A run given twice under two ids, with the same mixture and the same metrics to the last bit, is refused like one
given twice under one id: measured again it would have differed, so it is the same run submitted again, which would
count double and stand on both sides of every fold. Replicates are welcome; runs of two stated seeds are
never taken for one.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mixing.domains import SUM_TOLERANCE, Domains
from mixing.errors import OppositeDirections, TooFewRuns
from mixing.objective import ObjectiveSpec, groups
from mixing.runs.noise import outliers
from mixing.runs.sound import (
    DroppedRun,
    RunEvidence,
    check_measured,
    check_varies,
    sound_runs,
    unfit,
    values_of,
)
from mixing.runs.table import MOSTLY, Groups, RunTable, read_from
from mixing.sense import turned, unclear_direction

_CANCELLED = 1e-3
"""An objective that varies by a smaller share of what its tasks do is their noise."""
_FEWEST_KNOWN = 4
_NAMED = 5
"""Runs that a note names of those that lack a task."""
_MIXTURE_DIGITS = 9
"""Mixtures alike to so many digits are one mixture, written down by two programs."""


@dataclass(frozen=True)
class SetAside:
    """A measurement that no mixture explains, and that counts for nothing.

    Attributes:
        run: its id.
        task: its name.
        value: as it was measured.
        expected: by the other runs.
    """

    run: str
    task: str
    value: float
    expected: float


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
        dropped: the runs left out, in the order given: those with no metric of the objective, and faulty ones where
            that was asked for.
        notes: what was changed on the way in, in plain words.
        set_aside: what no mixture explains, by run and task.
        without_rows: `{domain: runs that were to read it and got no row of it}`.
    """

    table: RunTable
    tasks: tuple[str, ...]
    groups: Groups
    noise: np.ndarray
    left_out: Mapping[str, str]
    dropped: tuple[DroppedRun, ...]
    notes: tuple[str, ...]
    set_aside: tuple[SetAside, ...] = ()
    without_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def weights(self) -> np.ndarray:
        """(K, m) the mixtures."""
        return self.table.weights

    @property
    def metrics(self) -> np.ndarray:
        """(K, T) what was measured of each task."""
        return self.table.metrics[:, : len(self.tasks)]

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the objective over the runs, in its unit: what counts there as much and as little.

        Where tasks cancel to nothing, and where too few runs measured all of them, that of the tasks by weight.
        """
        measured = self.groups.value(self.table.metrics)
        apart = float(self.groups.column_weights @ np.nan_to_num(self.spreads))
        known = measured[np.isfinite(measured)]
        return max(float(known.std()), _CANCELLED * apart) if len(known) >= _FEWEST_KNOWN else apart

    @cached_property
    def spreads(self) -> np.ndarray:
        """(C,) standard deviation of each column over the runs that measured it."""
        return np.nanstd(self.table.metrics, axis=0)

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

    A task is fitted to the runs that measured it. Tasks beside the objective's are fitted too, so that their gain is
    seen; one of these that cannot be fitted is left out and says why, and those that older runs did not measure are
    named in a note.

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
        InvalidMetrics: a metric of the objective that no run has, that is no number, not positive, no share of 1
            where it is to be turned into an error rate, or the same in every run.
        OppositeDirections: one called like an accuracy of which nothing says that it is better when higher.
    """
    spec = ObjectiveSpec.of(objective)
    check_measured(spec, runs)
    sound, dropped = sound_runs(domains, runs, spec, needs.positive, drop_faulty)
    kept = [run for run, _ in sound]
    given = np.array([row for _, row in sound]).reshape(len(sound), len(domains))
    sums = given.sum(axis=1, keepdims=True)
    weights = np.where(np.abs(sums - 1) > SUM_TOLERANCE, given / sums, given)
    _check_enough(weights, kept, dropped, needs, domains)
    for task in sorted(spec.tasks):
        _check_task(task, spec, kept, needs.runs, len(domains))
    watched, lacking = _watched(kept, spec, needs.guarded)
    # A guarded one is not left out.
    least = {task: 0 if task in needs.guarded else needs.runs for task in watched}
    left_out = {
        task: why for task in watched if (why := unfit(task, kept, spec, needs.positive, least[task]))
    }
    tasks = tuple(sorted({*spec.tasks, *watched} - set(left_out)))
    metrics, set_aside, in_doubt = _metrics(kept, weights, spec, tasks, needs.runs)
    table, columns, noise = _table(domains, kept, weights, spec, tasks, metrics)
    notes = (
        *_notes(sums[:, 0], dropped, lacking, spec, tasks),
        *_gaps(kept, tasks),
        *_completed(metrics, columns, len(tasks)),
        *(_kept_in_doubt(one, needs.runs) for one in in_doubt),
    )
    return Evidence(table, tasks, columns, noise, left_out, dropped, notes, set_aside, _without_rows(kept))


def _check_task(
    task: str, spec: ObjectiveSpec, kept: Sequence[RunEvidence], needed: int, domains: int
) -> None:
    """Raise where a task of the objective has no clear direction, does not vary, or is measured on too few runs."""
    if why := unclear_direction(spec, task, values_of(task, kept)):
        raise OppositeDirections(why, field="directions", names=[task])
    check_varies(task, kept)
    if (count := len(values_of(task, kept))) < min(needed, len(kept)):
        raise TooFewRuns(
            f"only {count} of {len(kept)} runs measured task {task!r}, and a proposal over {domains} domains"
            f" needs {needed}; evaluate it on more of them, or take it out of the objective",
            needed=needed,
            given=count,
            names=[task],
        )


def _without_rows(runs: Sequence[RunEvidence]) -> dict[str, int]:
    asked = ((name, run) for run in runs for name, weight in (run.requested or {}).items() if weight > 0)
    return dict(sorted(Counter(name for name, run in asked if not run.mixture.get(name)).items()))


def _metrics(
    runs: Sequence[RunEvidence],
    weights: np.ndarray,
    spec: ObjectiveSpec,
    tasks: tuple[str, ...],
    least: int,
) -> tuple[np.ndarray, tuple[SetAside, ...], tuple[SetAside, ...]]:
    """(K, T) metrics, NaN where one is missing or set aside; what was set aside, and what is kept though in doubt.

    Nothing is set aside of a task that fewer than the ``least`` runs would then have measured.
    """
    given = [run.measured for run in runs]
    metrics = np.array(
        [[spec.lower_is_better(task, float(own.get(task, math.nan))) for task in tasks] for own in given]
    )
    found = outliers(weights, metrics, np.array([run.tokens for run in runs]))
    left = np.isfinite(metrics).sum(0) - np.bincount([one.column for one in found], minlength=len(tasks))
    set_aside: list[SetAside] = []
    in_doubt: list[SetAside] = []
    for one in sorted(found, key=lambda one: (runs[one.run].id, one.column)):
        task = tasks[one.column]
        value, expected = (turned(number, spec.turned.get(task)) for number in (one.value, one.expected))
        told = SetAside(runs[one.run].id, task, value, expected)
        if left[one.column] < least:
            in_doubt.append(told)
        else:
            set_aside.append(told)
            metrics[one.run, one.column] = math.nan
    return metrics, tuple(set_aside), tuple(in_doubt)


def _noise(
    runs: Sequence[RunEvidence], tasks: tuple[str, ...], measured: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(K, T) deviations as stated, 0 where a task's are not known, and the (T,) tasks whose are: of every run."""
    stated = np.array([[float(run.noise.get(task, math.nan)) for task in tasks] for run in runs])
    known = np.all((np.isfinite(stated) & (stated >= 0)) | ~measured, axis=0)
    return np.where(known & measured, stated, 0.0), known


def _table(
    domains: Domains,
    runs: Sequence[RunEvidence],
    weights: np.ndarray,
    spec: ObjectiveSpec,
    tasks: tuple[str, ...],
    metrics: np.ndarray,
) -> tuple[RunTable, Groups, np.ndarray]:
    """The table, how the objective is read from it, and the tasks' noise."""
    noise, known = _noise(runs, tasks, ~np.isnan(metrics))
    order = np.lexsort(np.concatenate([metrics, weights, noise], axis=1).T[::-1])
    order = order[~np.isnan(metrics[order]).all(axis=1)]
    metrics, noise = metrics[order], noise[order]
    columns = groups(spec, tasks, metrics).beside(tasks)
    used = columns.matrix != 0
    # The noise of tasks in one group is taken as independent; it is known where that of all of them is.
    joint = np.where(~(used & ~known).any(1), np.sqrt(np.square(noise) @ np.square(columns.matrix).T), 0.0)
    values, unsure = read_from(columns.matrix, metrics)
    joint = np.hypot(joint, unsure)
    ordered = [runs[row] for row in order]
    doubt = np.array([run.doubt for run in ordered])
    table = RunTable(
        domains=domains.names,
        names=columns.names,
        weights=weights[order],
        metrics=values,
        noise=np.hypot(joint, doubt[:, None] * np.nanstd(values, axis=0)),
        tokens=np.array([run.tokens for run in ordered]),
        rounds=np.array([run.round for run in ordered]),
        older=np.array([run.older for run in ordered]),
        off=np.zeros(len(order)),
        rounding=np.array([run.rounding for run in ordered]),
    )
    usual = [np.median(own[~np.isnan(measured)]) for own, measured in zip(noise.T, metrics.T, strict=True)]
    return table, columns, np.where(known, usual, np.nan)


def _kept_in_doubt(one: SetAside, least: int) -> str:
    return (
        f"Run {one.run} measured {one.value:.4g} for {one.task}, where the others say {one.expected:.4g}; it counts"
        f" all the same, because without such runs fewer than the {least} that are needed would be left."
    )


def _watched(
    runs: Sequence[RunEvidence], spec: ObjectiveSpec, guarded: Collection[str]
) -> tuple[list[str], list[str]]:
    """Tasks that the objective does not count: those to fit, and those that not all older runs measured.

    Runs are judged by what all of them measured, so one that is only watched must not leave older ones out.
    """
    # What only older runs measured is no longer asked about, such as the held-out slice of a domain taken out.
    asking = [run for run in runs if not run.older] or runs
    watched = sorted({task for run in asking for task in run.measured} - set(spec.tasks))
    older = [run for run in runs if run.older]
    lacking = [
        task for task in watched if task not in guarded and any(task not in run.measured for run in older)
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
            f"The weights of {len(off)} of {len(sums)} runs summed to between {off.min():.6f} and {off.max():.6f}"
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


def _gaps(runs: Sequence[RunEvidence], tasks: Sequence[str]) -> Iterator[str]:
    """Of each set of runs of this revision that lacks a task, which tasks and why."""
    new = [run for run in runs if not run.older]
    lacking: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        if missed := tuple(_without(run, task) for run in new if task not in run.measured):
            lacking.setdefault(missed, []).append(task)
    for missed, names in sorted(lacking.items()):
        more = len(missed) - _NAMED
        named = ", ".join(missed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        yield (
            f"{', '.join(names)}: no number for {len(missed)} of {len(new)} runs ({named}); fitted to the other"
            f" {len(new) - len(missed)}."
        )


def _completed(metrics: np.ndarray, columns: Groups, tasks: int) -> Iterator[str]:
    """Of the groups beside the (K, T) metrics, how many runs lack a part."""
    for name, row in zip(columns.names[tasks:], columns.matrix[tasks:], strict=True):
        lacking = np.isnan(metrics).astype(float) @ row / row.sum()
        some = lacking[(lacking > 0) & (lacking <= 1 - MOSTLY)]
        if len(some):
            yield (
                f"Of {name} {len(some)} runs lack a part, {some.max():.1%} at most: it is taken to be off its mean by"
                " as much as the rest of them is, and they count by so much less."
            )


def _without(run: RunEvidence, task: str) -> str:
    value = run.metrics.get(task)
    return run.id if value is None else f"{run.id}: {value}"


def _check_enough(
    weights: np.ndarray,
    runs: Sequence[RunEvidence],
    dropped: Sequence[DroppedRun],
    needs: Needs,
    domains: Domains,
) -> None:
    # The same mixture trained for longer is another run.
    trained = np.column_stack([weights, [run.tokens for run in runs]])
    different = len(np.unique(np.round(trained, _MIXTURE_DIGITS), axis=0))
    if different >= needs.runs:
        return
    possible = [name for name, least in sorted(needs.alternatives.items()) if least <= different]
    counted = f"{len(runs) + len(dropped)} runs"
    if dropped:
        counted += f", {len(runs)} of them sound,"
    kind = ""
    if different < len(runs):
        counted += f" of {different} different mixture{'' if different == 1 else 's'}"
        kind = " different ones"
    offer = f"; so few still do for {', '.join(possible)}" if possible else ""
    why = f"; of the others, run {dropped[0].id!r}: {dropped[0].reason}" if dropped else ""
    raise TooFewRuns(
        f"{counted} are too few: a proposal over {len(domains)} domains needs {needs.runs}{kind}{offer}{why}",
        needed=needs.runs,
        given=different,
        names=possible,
    )
