"""Predicted against measured: the launches of the proposed and the natural mixture, as a pair.

What is held against the predicted gain is the same objective, measured: the tasks' weighted mean, or the worst
family's where that was minimised. The worst family may be another one on each mixture.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.document import from_document
from mixing.domains import HELD_OUT_PREFIX
from mixing.sense import Turn, turned
from service.dashboard.formatting import ACCURACY, BPB, is_higher_better, turn_of, unit_of
from service.launches.schemas import GainView, HeldView, LaunchComparisonView
from service.launches.service import LAUNCHES, describe_launch
from store import jobs
from store.documents import MODEL, TRAINING, LaunchDocument, SwarmDocument
from store.series import latest_metrics
from store.tables import PROPOSED, Launch, MixtureRow, Optimization, is_proposed

Document = Mapping[str, Any]
_AS_PLANNED = 0.05
"""A run whose size and tokens are within this share of the target's is the planned one: it trains whole steps."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the proposed mixture is than the natural one: predicted, then measured, in ``unit``."""

    name: str
    predicted: float
    interval: tuple[float, float] | None
    natural: float
    proposed: float
    unit: str = BPB
    higher_is_better: bool = False

    @property
    def measured(self) -> float:
        """Measured gain; positive is better."""
        gain = self.natural - self.proposed
        return -gain if self.higher_is_better else gain

    @property
    def is_inside(self) -> bool | None:
        """Whether the measurement lies within the predicted interval; None without one."""
        return None if self.interval is None else self.interval[0] <= self.measured <= self.interval[1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two launches that differ in their mixture only."""

    proposed: Document
    natural: Document
    objective: Gain
    tasks: tuple[Gain, ...]
    is_target: bool = False
    """Whether they are the planned training run, and the predictions those of it and not of a proxy."""

    @property
    def rows(self) -> tuple[Gain, ...]:
        """The objective, then its tasks."""
        return (self.objective, *self.tasks)


def compare(evidence: Document, launches: Sequence[Document]) -> Comparison | None:
    """The newest finished pair, or None; ``launches`` are those of one optimization, newest first.

    Only a pair that measured all tasks of the objective is compared.
    """
    tasks = objective_tasks(evidence)
    done = [launch for launch in launches if launch["state"] == "succeeded" and measured_all(launch, tasks)]
    for proposed in (launch for launch in done if launch["mixture_kind"] == PROPOSED):
        if tasks and (natural := twin_of(proposed, done)) is not None:
            return compare_pair(evidence, natural, proposed)
    return None


def twin_of(launch: Document, launches: Sequence[Document]) -> Document | None:
    """The first that differs from a launch of the proposed or the natural mixture in being of the other one."""
    other = PROPOSED if launch["mixture_kind"] == _NATURAL else _NATURAL
    if other == _NATURAL and not is_proposed(launch["mixture_kind"]):
        return None
    twins = (one for one in launches if one["mixture_kind"] == other and _settings(one) == _settings(launch))
    return next(twins, None)


def compare_pair(evidence: Document, natural: Document, proposed: Document) -> Comparison:
    """Two launches on the tasks of the objective."""
    predicted = predictions(evidence, proposed)
    objective, tasks = predicted.objective, [task for task in predicted.tasks if task["weight"] > 0]
    families = [family["tasks"] for family in objective.get("families") or ()]
    weights = {task["name"]: float(task["weight"]) for task in tasks}
    turns: dict[str, Turn | None] = {
        task["name"]: turn_of("accuracy" if unit_of(task) == ACCURACY else "higher")
        for task in tasks
        if is_higher_better(task)
    }

    def measured(launch: Document) -> float:
        value = _measured(launch["metrics"], families or [weights], turns)
        return math.nan if value is None else value

    return Comparison(
        proposed=proposed,
        natural=natural,
        objective=_gain(
            "worst family" if families else "objective", objective, measured(natural), measured(proposed)
        ),
        tasks=tuple(
            _gain(task["name"], task, *(launch["metrics"][task["name"]] for launch in (natural, proposed)))
            for task in tasks
        ),
        is_target=predicted.is_target,
    )


@dataclass(frozen=True, slots=True)
class Predictions:
    """What was predicted of the objective and of each task, as the evidence has it, of the proxies or the target."""

    objective: Document
    tasks: Sequence[Document]
    is_target: bool


def predictions(evidence: Document, launch: Document) -> Predictions:
    """Those that a launch is held against."""
    objective, tasks = evidence["objective"], list(evidence["tasks"])
    at_target = _at_target(evidence, launch)
    if at_target is not None:
        objective = _carried(objective, at_target["objective"])
        carried = {row["name"]: row for row in at_target["tasks"]}
        tasks = [_carried(task, carried[task["name"]]) if task["name"] in carried else task for task in tasks]
    return Predictions(objective, tasks, at_target is not None)


def _at_target(evidence: Document, launch: Document) -> Document | None:
    """What was predicted of the target, where the launch is of its size and length."""
    at_target = evidence.get("at_target")
    if at_target is None:
        return None
    pairs = (
        (launch.get("non_embedding_parameters"), at_target["parameters"]),
        (launch.get("tokens"), at_target["tokens"]),
    )
    return at_target if all(own and abs(own / planned - 1) < _AS_PLANNED for own, planned in pairs) else None


def _carried(proxies: Document, target: Document) -> Document:
    """A prediction of the proxies with the gain and the interval of the target."""
    return {**proxies, "gain": target["gain"], "gain_interval": target["interval"]}


def objective_tasks(evidence: Document) -> list[Document]:
    """Those with a weight."""
    return [task for task in evidence["tasks"] if task["weight"] > 0]


def _gain(name: str, predicted: Document, natural: float, proposed: float) -> Gain:
    bounds = predicted["gain_interval"]
    return Gain(
        name,
        predicted["gain"],
        None if bounds is None else (float(bounds[0]), float(bounds[1])),
        natural,
        proposed,
        unit_of(predicted),
        is_higher_better(predicted),
    )


def measured_all(launch: Document, tasks: Sequence[Document]) -> bool:
    """Whether nothing of the objective is missing."""
    return all(task["name"] in launch["metrics"] for task in tasks)


def _settings(launch: Document) -> tuple[Any, ...]:
    document = from_document(LaunchDocument, launch["settings"])
    program = document.launcher if document.is_program else None
    return (
        *(program, document.size, document.architecture, document.start_content),
        *(document.seed, document.chosen),
    )


def _measured(
    metrics: Mapping[str, float],
    families: Sequence[Mapping[str, float]],
    turns: Mapping[str, Turn | None],
) -> float | None:
    """The worst family's weighted mean of the tasks as they are minimised, turned back if all are turned alike.

    None where there is no family, or a task was not measured.
    """
    if not families or not {name for family in families for name in family} <= metrics.keys():
        return None
    values = {name: turned(value, turns.get(name)) for name, value in metrics.items()}
    worst = max(
        math.fsum(weight * values[name] for name, weight in family.items()) / math.fsum(family.values())
        for family in families
    )
    alike: set[Turn | None] = {turns.get(name) for family in families for name in family}
    return turned(worst, alike.pop()) if len(alike) == 1 else worst


def objective_weights(document: Document) -> dict[str, float]:
    """Task -> weight in the objective; empty when it is the domains' own held-out slices."""
    return {task["name"]: float(task["weight"]) for task in document["settings"]["tasks"]}


def objective_bpb(metrics: Mapping[str, float], settings: Document) -> float | None:
    """The objective measured on one model, the mean or the worst family's as asked for; None before it was."""
    tasks = settings["tasks"] or [
        {"name": name, "weight": 1.0, "family": None} for name in metrics if name.startswith(HELD_OUT_PREFIX)
    ]
    is_worst = settings.get("aggregate") == "worst_family"
    turns: dict[str, Turn | None] = {task["name"]: turn_of(task.get("metric")) for task in tasks}
    families: dict[str, dict[str, float]] = {}
    for task in tasks:
        if task["weight"] > 0:
            family = (task.get("family") or task["name"]) if is_worst else "all"
            families.setdefault(family, {})[task["name"]] = float(task["weight"])
    return _measured(metrics, list(families.values()), turns)


def with_objective(models: Iterable[Document], settings: Document | None = None) -> list[Document]:
    """Runs of ``settings``, or launches with settings of their own, with the objective measured on each."""
    return [
        {**model, "objective": objective_bpb(model["metrics"], settings or model["settings"])}
        for model in models
    ]


# A launch held against what was predicted for its mixture: task by task, predicted, interval, measured.

MOST_LAUNCHES = 200
"""Of an optimization, newest first, among which the one of the other mixture is looked for."""
_NATURAL = "natural"


def held_against(session: Session, launch_id: str) -> LaunchComparisonView:
    """The launch beside the prediction for its mixture; raises NotFound."""
    launch = describe_launch(session, launch_id).model_dump(mode="json")
    is_final = launch["state"] in jobs.ENDED
    latest = {name: row.value for name, row in latest_metrics(session, launch["run_id"]).items()}
    launch["metrics"] = {**latest, **launch["metrics"]}
    view = LaunchComparisonView(
        launch_id=launch_id,
        mixture_kind=launch["mixture_kind"],
        is_final=is_final,
        is_proxy=_is_proxy(session, launch),
        is_target=False,
        against=None,
        note=None,
        rows=[],
    )
    is_natural = launch["mixture_kind"] == _NATURAL
    evidence = _evidence(session, launch)
    if evidence is None or not (is_natural or is_proposed(launch["mixture_kind"])):
        view.note = "Predictions are made of an optimization's proposed mixture and of the natural one."
        return view
    twin = _twin(session, launch, evidence)
    gains: dict[str, Gain] = {}
    if twin is None:
        other = PROPOSED if is_natural else _NATURAL
        view.note = (
            f"A gain is measured once a launch of the {other} mixture with the same settings has succeeded."
        )
    elif measured_all(launch, objective_tasks(evidence)):
        view.against = twin["id"]
        pair = (launch, twin) if is_natural else (twin, launch)
        comparison = compare_pair(evidence, *pair)
        gains = {"objective": comparison.objective, **{gain.name: gain for gain in comparison.tasks}}
    else:
        view.note = "A gain is measured once every task of the objective is."
    objective = objective_bpb(launch["metrics"], launch["settings"])
    predicted = predictions(evidence, launch)
    view.is_target = predicted.is_target
    view.rows = [
        _row("objective", predicted.objective, objective, gains, view),
        *(
            _row(task["name"], task, launch["metrics"].get(task["name"]), gains, view)
            for task in predicted.tasks
        ),
    ]
    return view


def _row(
    name: str,
    predicted: Document,
    measured: float | None,
    gains: Mapping[str, Gain],
    view: LaunchComparisonView,
) -> HeldView:
    is_natural = view.mixture_kind == _NATURAL
    interval = predicted.get("natural_interval") if is_natural else None
    gain, bounds = gains.get(name), predicted["gain_interval"]
    is_inside = None
    if interval is not None and measured is not None and view.is_proxy:
        is_inside = interval[0] <= measured <= interval[1]
    return HeldView(
        name=name,
        unit=unit_of(predicted),
        weight=predicted.get("weight"),
        predicted=predicted[_NATURAL if is_natural else PROPOSED],
        interval=interval,
        measured=measured,
        is_inside=is_inside,
        gain=GainView(
            predicted=predicted["gain"],
            interval=bounds,
            measured=None if gain is None else gain.measured,
            is_inside=None if gain is None else gain.is_inside,
        ),
    )


def _evidence(session: Session, launch: Document) -> Document | None:
    """Of the proposed mixture that is launched; beside a natural one, of the optimization's last."""
    query = select(MixtureRow.evidence).where(MixtureRow.optimization_id == launch["optimization_id"])
    if launch["mixture_kind"] == _NATURAL:
        query = query.where(MixtureRow.kind == PROPOSED)
    else:
        query = query.where(MixtureRow.id == launch["mixture_id"])
    evidence = None if launch["optimization_id"] is None else session.scalar(query)
    return evidence if evidence and "tasks" in evidence else None  # of a baseline nothing was fitted


def _twin(session: Session, launch: Document, evidence: Document) -> Document | None:
    page = LAUNCHES.page(session, None, MOST_LAUNCHES, optimization=launch["optimization_id"])
    others = [view.model_dump(mode="json") for view in page.items if view.state == jobs.SUCCEEDED]
    return twin_of(launch, [one for one in others if measured_all(one, objective_tasks(evidence))])


def _is_proxy(session: Session, launch: Document) -> bool:
    """Whether what is trained is what the swarm's runs are: the model, the tokens and all settings."""
    row = session.get_one(Launch, launch["id"])
    document = LaunchDocument.of(row)
    if document.is_program or launch["optimization_id"] is None:
        return False
    proxy = SwarmDocument.of(session.get_one(Optimization, launch["optimization_id"])).proxy
    return proxy is not None and all(
        getattr(proxy, name) == getattr(document, name) for name in (*MODEL, *TRAINING)
    )
