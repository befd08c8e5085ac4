"""A plan, in sentences and hours."""

from dataclasses import replace

from sqlalchemy.orm import Session

from service.optimizations.cost import AskedSwarm, Measured, cost_view, planned_swarm
from service.optimizations.plan_sentences import plan_sentences
from service.optimizations.schemas import CostView, Hours, PlanView
from service.optimizations.service import PlannedOptimization
from service.training.device import WorkerDevice
from store.tables import Revision


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
