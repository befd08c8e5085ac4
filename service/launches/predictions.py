"""A launch held against what was predicted for its mixture: task by task, predicted, interval, measured."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.dashboard.formatting import unit_of
from service.launches.comparison import (
    Gain,
    compare_pair,
    measured_all,
    objective_bpb,
    objective_tasks,
    predictions,
    twin_of,
)
from service.launches.schemas import GainView, HeldView, LaunchComparisonView
from service.launches.service import LAUNCHES, describe_launch
from store import jobs
from store.documents import MODEL, TRAINING, LaunchDocument, SwarmDocument
from store.series import latest_metrics
from store.tables import Launch, MixtureRow, Optimization

Document = Mapping[str, Any]

MOST_LAUNCHES = 200
"""Of an optimization, newest first, among which the one of the other mixture is looked for."""
_PAIRED = ("proposed", "natural")


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
    evidence = _evidence(session, launch["optimization_id"])
    if evidence is None or launch["mixture_kind"] not in _PAIRED:
        view.note = "Predictions are made of an optimization's proposed mixture and of the natural one."
        return view
    twin = _twin(session, launch, evidence)
    gains: dict[str, Gain] = {}
    if twin is None:
        other = "natural" if launch["mixture_kind"] == "proposed" else "proposed"
        view.note = (
            f"A gain is measured once a launch of the {other} mixture with the same settings has succeeded."
        )
    elif measured_all(launch, objective_tasks(evidence)):
        view.against = twin["id"]
        pair = (twin, launch) if launch["mixture_kind"] == "proposed" else (launch, twin)
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
    is_natural = view.mixture_kind == "natural"
    interval = predicted.get("natural_interval") if is_natural else None
    gain, bounds = gains.get(name), predicted["gain_interval"]
    is_inside = None
    if interval is not None and measured is not None and view.is_proxy:
        is_inside = interval[0] <= measured <= interval[1]
    return HeldView(
        name=name,
        unit=unit_of(predicted),
        weight=predicted.get("weight"),
        predicted=predicted["natural" if is_natural else "proposed"],
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


def _evidence(session: Session, optimization_id: str | None) -> Document | None:
    query = select(MixtureRow.evidence).where(
        MixtureRow.optimization_id == optimization_id, MixtureRow.kind == "proposed"
    )
    evidence = None if optimization_id is None else session.scalar(query)
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
