"""What is minimised: tasks, their directions, families and weights, and what one law is fitted to.

Inside, an objective is a weighted mean of lower-is-better metrics (or the worst of several such means). A task
that is better when higher says so and says how it is turned, `1 - value` or `-value`; it is never averaged with
its opposite as it stands. Outside, an accuracy is an accuracy (`mixing.sense`).

Weights are divided by their sum wherever they are used: all ones are the same as none given, and doubling them
does not halve the strength of lambda in the KL term beside them. Standardisation keeps to that too. It divides
a task's weight by the standard deviation of its metric over the runs and divides the weights by their sum again,
so tasks count by what mixtures change in them and the objective stays in the unit of the metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import numpy as np

from mixing.domains import HELD_OUT_PREFIX
from mixing.errors import (
    InvalidMetrics,
    InvalidSetting,
    InvalidWeights,
    OppositeDirections,
    as_number,
    shown,
)
from mixing.runs.table import Aggregation, Groups
from mixing.sense import Direction, Turn, suggested_direction, turned

Granularity = Literal["per task", "per family", "aggregated"]
"""What one law is fitted to: each task, each family's mean, or the objective itself."""


USUAL_SPREAD = 0.2
"""Standard deviation of a metric over a swarm's runs at which constants stated in BPB are taken as they stand.

On the swarms of `benchmarks/swarms` that of the mean BPB is .15 to .30. The KL weight and the Huber threshold of the
log-linear law are published in BPB, where they mean nothing for a metric of another size; they count in proportion
to what the metric varies by, so that no answer hangs on its unit.
"""

AGGREGATED = "objective"
"""Name of the one column that is left when everything is aggregated before the fit."""


@dataclass(frozen=True)
class ObjectiveSpec:
    """What a mixture is asked to be good at.

    A family counts as the weighted mean of its tasks; a task in no family is a family of its own, of the task's
    weight. The objective is the weighted mean of the families, or the worst of them.

    Attributes:
        tasks: `{task: weight}`, non-negative; 0 for a task that is only watched.
        families: `{family: its tasks}`, none in two of them.
        family_weights: `{family: weight}`; 1 where nothing is said, 0 for a family that is only watched.
        directions: `{task: "lower" or "higher"}`, whichever is better; lower where nothing is said. May name
            tasks outside the objective.
        turned: `{higher-is-better task: how it is turned}`.
        units: `{task: what it is measured in}`, for what people read; one that names a direction, as "nats" or
            "accuracy" does, must agree with the task's. Nothing is called by a unit nobody stated.
        aggregation: the worst family is the one of the highest mean, which has no use for weights.
        granularity: what one law is fitted to.
        standardize: weigh each task by the inverse of its standard deviation over the runs; the worst family is
            then the one highest above its mean over the runs.

    Raises:
        InvalidWeights: a negative or infinite weight, or none above 0.
        OppositeDirections: a task of the objective is better when higher and nothing says how to turn it.
        InvalidSetting: families that overlap, name unknown tasks or are empty, and settings that contradict.

    >>> spec = ObjectiveSpec({"mmlu": 1.0}, directions={"mmlu": "higher"}, turned={"mmlu": "error rate"})
    >>> spec.lower_is_better("mmlu", 0.625)
    0.375
    """

    tasks: Mapping[str, float]
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)
    family_weights: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    turned: Mapping[str, Turn] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    aggregation: Aggregation = "weighted mean"
    granularity: Granularity = "per task"
    standardize: bool = False

    def __post_init__(self) -> None:
        _check_choice("aggregation", self.aggregation, get_args(Aggregation))
        _check_choice("granularity", self.granularity, get_args(Granularity))
        _check_weights("task", self.tasks)
        _check_weights("family", self.family_weights)
        _check_families(self)
        _check_directions(self)
        parts = self.parts()
        if self.aggregation == "worst family":
            _check_worst(self, parts)

    @classmethod
    def of(cls, objective: "Mapping[str, float] | ObjectiveSpec") -> "ObjectiveSpec":
        """A specification as it is, or that of `{task: weight}` with lower-is-better tasks and no families."""
        return objective if isinstance(objective, ObjectiveSpec) else cls(objective)

    def parts(self) -> tuple["FamilyPart", ...]:
        """The families that count, sorted by name, their weights summing to 1.

        Raises:
            InvalidWeights: nothing counts, or a family counts and none of its tasks does.
        """
        grouped = {task for members in self.families.values() for task in members}
        alone = {task: weight for task, weight in self.tasks.items() if weight > 0 and task not in grouped}
        counted = [(name, {name: 1.0}, weight) for name, weight in alone.items()]
        for name, members in self.families.items():
            if (weight := float(self.family_weights.get(name, 1.0))) == 0:
                continue
            total = sum(self.tasks[task] for task in members)
            if total <= 0:
                raise InvalidWeights(
                    f"family {name!r} counts, but none of its tasks has a weight above 0",
                    field="objective",
                    names=[name],
                )
            shares = {task: self.tasks[task] / total for task in members if self.tasks[task] > 0}
            counted.append((name, shares, weight))
        if not counted:
            raise InvalidWeights("the objective needs a task of a weight above 0", field="objective")
        whole = sum(weight for _, _, weight in counted)
        return tuple(FamilyPart(name, shares, weight / whole) for name, shares, weight in sorted(counted))

    def lower_is_better(self, task: str, value: float) -> float:
        """A measured value as it enters the objective: turned where the task asks for it."""
        return turned(value, self.turned.get(task))


@dataclass(frozen=True)
class FamilyPart:
    """A family that counts: `{task: share of the family}` summing to 1, and the family's weight."""

    name: str
    shares: Mapping[str, float]
    weight: float


def groups(spec: ObjectiveSpec, tasks: Sequence[str], metrics: np.ndarray | None = None) -> Groups:
    """The columns to fit for (T,) tasks, and the objective read from them.

    Args:
        spec: the objective.
        tasks: every task that was measured; those the objective does not count are watched.
        metrics: (K, T) lower-is-better metrics, needed to standardise; NaN where one was not measured.

    Raises:
        InvalidMetrics: a task of the objective is not among `tasks`, or does not vary and is to be standardised.
        InvalidSetting: a family is called like a task.
    """
    parts = spec.parts()
    if missing := sorted({task for part in parts for task in part.shares} - set(tasks)):
        raise InvalidMetrics(
            f"no metric for {', '.join(missing)} of the objective", field="metrics", names=missing
        )
    columns = {task: column for column, task in enumerate(tasks)}
    means = np.zeros((len(parts), len(tasks)))
    for row, part in zip(means, parts, strict=True):
        row[[columns[task] for task in part.shares]] = list(part.shares.values())
    weights = np.array([part.weight for part in parts])
    offsets = np.zeros(len(parts))
    if spec.standardize:
        means, offsets = _standardized(means, weights, tasks, metrics)
    if spec.aggregation == "weighted mean":
        offsets = np.zeros(len(parts))
    families = tuple(part.name for part in parts)
    if spec.granularity == "per task":
        return Groups(tuple(tasks), np.eye(len(tasks)), families, means, offsets, weights, spec.aggregation)
    if spec.granularity == "aggregated":
        names, rows, membership = (AGGREGATED,), (weights @ means)[None], np.ones((1, 1))
        families, offsets, weights = names, np.zeros(1), np.ones(1)
    else:
        names, rows, membership = families, means, np.eye(len(parts))
    watched = np.flatnonzero(means.sum(0) == 0).tolist()
    alone = tuple(tasks[index] for index in watched)
    if clash := sorted(set(names) & set(alone)):
        raise InvalidSetting(
            f"a family and a watched task are both called {', '.join(clash)}; rename one",
            field="families",
            names=clash,
        )
    return Groups(
        names + alone,
        np.concatenate([rows, np.eye(len(tasks))[watched]]),
        families,
        np.concatenate([membership, np.zeros((len(membership), len(watched)))], axis=1),
        offsets,
        weights,
        spec.aggregation,
    )


def _standardized(
    means: np.ndarray, weights: np.ndarray, tasks: Sequence[str], metrics: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(F, T) means over metrics in units of their deviation, scaled back to weights that sum to 1, and offsets."""
    if metrics is None:
        raise InvalidSetting("standardising needs the runs' metrics", field="standardize")
    counted = means.sum(0) > 0
    spread = np.nanstd(metrics, axis=0)
    if flat := [task for task, use, size in zip(tasks, counted, spread, strict=True) if use and size == 0]:
        raise InvalidMetrics(
            f"{', '.join(flat)} is the same in every run and cannot be standardised",
            field="metrics",
            names=flat,
        )
    scaled = means / np.where(counted, spread, 1.0)
    scaled /= (weights @ scaled).sum()
    return scaled, scaled @ np.nanmean(metrics, axis=0)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidSetting(f"{name} is {value!r}; it is one of {', '.join(map(repr, choices))}", field=name)


def _check_weights(kind: str, weights: Mapping[str, float]) -> None:
    if bad := sorted(name for name, weight in weights.items() if not 0 <= as_number(weight) < np.inf):
        raise InvalidWeights(
            f"the weight of {kind} {bad[0]!r} is {shown(weights[bad[0]])}; it must be a number of at least 0",
            field="objective",
            names=bad,
        )


def _check_families(spec: ObjectiveSpec) -> None:
    owner: dict[str, str] = {}
    for family, members in spec.families.items():
        if not members:
            raise InvalidSetting(f"family {family!r} has no tasks", field="families", names=[family])
        for task in members:
            if task not in spec.tasks:
                raise InvalidSetting(
                    f"family {family!r} names {task!r}, which is no task of the objective",
                    field="families",
                    names=[family, task],
                )
            if task in owner:
                raise InvalidSetting(
                    f"task {task!r} is in the families {owner[task]!r} and {family!r}; it would count twice",
                    field="families",
                    names=[task],
                )
            owner[task] = family
    if unknown := sorted(set(spec.family_weights) - set(spec.families)):
        raise InvalidSetting(
            f"there is a weight but no family for {', '.join(unknown)}", field="family_weights", names=unknown
        )
    if clash := sorted(set(spec.families) & set(spec.tasks)):
        raise InvalidSetting(
            f"a family and a task are both called {', '.join(clash)}; rename one",
            field="families",
            names=clash,
        )


def _check_directions(spec: ObjectiveSpec) -> None:
    for direction in spec.directions.values():
        _check_choice("directions", direction, get_args(Direction))
    for turn in spec.turned.values():
        _check_choice("turned", turn, get_args(Turn))
    higher = {task for task, direction in spec.directions.items() if direction == "higher"}
    if stray := sorted(set(spec.turned) - higher):
        raise InvalidSetting(
            f"{', '.join(stray)} would be turned but is better when lower; state that higher is better",
            field="turned",
            names=stray,
        )
    if unturned := sorted((higher & set(spec.tasks)) - set(spec.turned)):
        raise OppositeDirections(
            f"better when higher: {', '.join(unturned)}. An objective averages metrics that are better when"
            " lower, so say how each is turned: 'error rate' (1 - value, for a share of 1 such as an accuracy) or"
            " 'negated' (-value), or leave it out",
            field="directions",
            names=unturned,
        )
    for task, unit in spec.units.items():
        direction = spec.directions.get(task, "lower")
        if suggested_direction(unit) not in (None, direction):
            raise InvalidSetting(
                f"task {task!r} is measured in {unit!r} and is said to be better when {direction}; state its"
                " direction (`directions`), or another unit (`units`)",
                field="directions",
                names=[task],
            )


def _check_worst(spec: ObjectiveSpec, parts: Sequence[FamilyPart]) -> None:
    if spec.granularity == "aggregated":
        raise InvalidSetting(
            "the worst family cannot be told once all tasks are aggregated; fit per family or per task",
            field="granularity",
        )
    if len({round(part.weight * len(parts), 12) for part in parts}) > 1:
        raise InvalidSetting(
            "the worst family is the one of the highest mean and has no use for weights; give families and"
            " tasks outside them equal weights, or 0 to leave one out",
            field="family_weights",
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every run is measured on, and what it counts for.

    Attributes:
        name: unique among the tasks.
        weight: its share of the objective, not normalised.
        family: whose tasks count together; None for a family of its own.
        metric: "bpb"; "accuracy", a share of 1 that is better when higher; or, of whatever else was measured, which
            way it is better, "lower" or "higher".
    """

    name: str
    weight: float = 1.0
    family: str | None = None
    metric: Literal["bpb", "accuracy", "lower", "higher"] = "bpb"

    @property
    def is_higher_better(self) -> bool:
        """Whether larger values are better."""
        return self.metric in ("accuracy", "higher")


_UNITS: Final = {"bpb": "BPB", "accuracy": "accuracy"}


def objective_of(
    tasks: Sequence[Task], domains: Sequence[str], granularity: str, *, worst_family: bool
) -> ObjectiveSpec:
    """The objective of a request: its tasks, or without any the held-out slice of every domain, each the same.

    The weighted mean stays that of the tasks however they are grouped: a family weighs what its tasks do together.
    Of worst families none weighs more than another, so there the weights only say what a family's own mean is.

    Args:
        tasks: of which accuracies enter as error rates, and what else is better when higher negated. One without a
            family is a family of its own.
        domains: names of those that have a held-out slice.
        granularity: of the recipe.
        worst_family: minimise the worst family's mean instead of the weighted mean of all tasks.

    Raises:
        InvalidWeights, InvalidSetting: as `ObjectiveSpec`.
    """
    counted = tasks or [Task(name=f"{HELD_OUT_PREFIX}{name}") for name in domains]
    if not counted:
        raise InvalidSetting("no domain has enough text for a held-out slice; give tasks", field="tasks")
    weights = {task.name: float(task.weight) for task in counted}
    _check_weights("task", weights)
    higher = [task for task in counted if task.is_higher_better]
    members: dict[str, list[str]] = {}
    if worst_family or granularity == "per family":
        for task in counted:
            if task.family:
                members.setdefault(task.family, []).append(task.name)
    totals = {name: sum(weights[task] for task in names) for name, names in members.items()}
    if worst_family:
        alone = {task.name for task in counted if not task.family}
        weights |= {name: float(weights[name] > 0) for name in alone}
        totals = {name: float(total > 0) for name, total in totals.items()}
    chosen: Any = granularity  # a Recipe checks it, and has only names
    return ObjectiveSpec(
        weights,
        members,
        totals,
        directions={task.name: "higher" for task in higher},
        turned={task.name: "error rate" if task.metric == "accuracy" else "negated" for task in higher},
        units={
            task.name: _UNITS.get(task.metric, "") for task in counted
        },  # a unit, though none, is one said
        aggregation="worst family" if worst_family else "weighted mean",
        granularity=chosen,
    )
