"""A plan of what is reused, in sentences and hours."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from service.dashboard.formatting import flops, quantity, size
from service.optimizations.cost import AskedSwarm, Measured, cost_view, planned_swarm
from service.optimizations.schemas import CostView, Hours, PlanView
from service.optimizations.service import PlannedOptimization
from service.training.device import WorkerDevice
from store.tables import Revision

Document = Mapping[str, Any]

_NAMED = 8
"""Names listed in a sentence; the plan itself has all of them."""


def plan_sentences(
    plan: Document, hours: Document | None = None, cost: Document | None = None
) -> Iterator[str]:
    """What will be done, why, what it costs against recomputing everything, and what is lost by it.

    Without ``hours`` and ``cost``, which follow from the device, the plan's own estimate by past runs is told.
    """
    yield from plan["why"]
    if plan["recomputed"]:
        yield f"Recomputed: {_listed(plan['recomputed'])}."
    for name, ratios in sorted(plan["groups"].items()):
        said = f"{len(ratios)} domains keep their ratios as the virtual domain {name!r}"
        cap = plan["virtual_caps"].get(name)
        if cap is not None and cap < 1:
            said += (
                f", of which the mixture may hold {100 * cap:.1f}% at most: beyond that"
                f" {plan['binding_members'].get(name)!r} would be repeated too often"
            )
        yield f"{said}."
    older, aside = len(plan["reused"]), len(plan["set_aside"])
    if older or aside:
        reasons = sorted(set(plan["set_aside"].values()))
        yield f"{older} of {older + aside} older runs count" + (
            f"; the others do not: {'; '.join(reasons[:3])}." if aside else "."
        )
    yield _cost_sentence(plan, hours, cost)
    if cost is not None and plan["new_runs"]:
        yield from cost_sentences(cost)
    yield from plan["lost"]


def cost_sentences(cost: Document) -> Iterator[str]:
    """The arithmetic of training, and how it is split into waves that fit into memory."""
    said = f"Training {quantity(cost['tokens'])} tokens takes {flops(cost['training_flops'])}"
    if cost["evaluation_flops"]:
        said += f", evaluation at most {flops(cost['evaluation_flops'])} more"
    yield f"{said}."
    if cost["bytes_per_model"] is not None:
        said = f"A model takes up to {size(cost['bytes_per_model'])} of memory"
        if cost["largest_wave"] is not None:
            said += (
                f"; of the device's {size(cost['memory_bytes'])} a worker has room for"
                f" {cost['largest_wave']:,} at once"
            )
        yield f"{said}."
    if cost["waves"] is not None:
        together = f"up to {cost['members']} together" if cost["members"] > 1 else "one at a time"
        yield (
            f"Fastest by calibration on {cost['device']}: {cost['backend']}, {together}, in {cost['waves']:,}"
            f" wave{'s' * (cost['waves'] != 1)}."
        )


_SOURCES = {
    "own_runs": "By this swarm's own finished runs",
    "past_runs": "By the comparable runs so far",
    "calibration": "By the device's calibration",
}


def _cost_sentence(plan: Document, hours: Document | None, cost: Document | None) -> str:
    """New runs and worker hours against recomputing everything."""
    said = f"{plan['new_runs']} runs are trained; recomputing everything would take {plan['recompute_runs']}"
    if hours is not None and hours["new"] is not None and hours["recompute"] is not None:
        new, recompute = 3600 * hours["new"], 3600 * hours["recompute"]
        source = (cost or {}).get("source")
    else:
        new, recompute, source = plan["new_seconds"], plan["recompute_seconds"], "past_runs"
    if new is None or recompute is None:
        why = (cost or {}).get("unknown")
        reason = f", and {why}" if why else ""
        return f"{said}. How long that takes nobody knows: no comparable run was trained yet{reason}."
    by = _SOURCES.get(source or "", _SOURCES["past_runs"])
    return f"{said}. {by} that is {_worker_time(new)} of worker time instead of {_worker_time(recompute)}."


def time_source(cost: Document) -> str:
    """What a cost's hours rest on, or why there are none."""
    if cost["source"] is None:
        return cost["unknown"] or "not known"
    return _SOURCES[cost["source"]][0].lower() + _SOURCES[cost["source"]][1:]


def _worker_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """The first few by name, the rest by number."""
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def plan_view(session: Session, planned: PlannedOptimization, device: WorkerDevice) -> PlanView:
    """What a dry run answers; a method that trains nothing has nothing to reuse."""
    revision = session.get_one(Revision, planned.revision_id)
    document = {} if planned.reuse is None else planned.reuse.plan.to_dict()
    swarm = planned_swarm(session, planned)
    cost = _cost(swarm, device, document.get("new_seconds"))
    everything = (
        None
        if swarm is None
        else _cost(
            replace(swarm, runs=document.get("recompute_runs", planned.runs)),
            device,
            document.get("recompute_seconds"),
        )
    )
    hours = Hours(
        new=cost.device_hours if cost else None, recompute=everything.device_hours if everything else None
    )
    return PlanView(
        domain_set=revision.domain_set.name,
        revision=revision.number,
        method=planned.checked.method.name,
        mixture_id=planned.reuse.mixture if planned.reuse else None,
        sentences=list(
            plan_sentences(document, hours.model_dump(), None if cost is None else cost.model_dump())
        )
        if document
        else ["Nothing is trained, so nothing is reused."],
        hours=hours,
        cost=cost,
        plan=document,
    )


def _cost(swarm: AskedSwarm | None, device: WorkerDevice, past_seconds: float | None) -> CostView | None:
    """What so many runs cost, timed by past runs where there are any."""
    if swarm is None:
        return None
    return cost_view(swarm, device, None if past_seconds is None else Measured(past_seconds, "past_runs"))
