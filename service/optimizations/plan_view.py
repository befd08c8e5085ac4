"""A plan, in sentences and hours."""

from sqlalchemy.orm import Session

from service.database.models import Revision
from service.optimizations.plan_sentences import plan_sentences
from service.optimizations.schemas import Hours, PlanView
from service.optimizations.service import PlannedOptimization


def plan_view(session: Session, planned: PlannedOptimization) -> PlanView:
    """What a dry run answers; a method that trains nothing has nothing to reuse."""
    revision = session.get_one(Revision, planned.revision_id)
    document = {} if planned.reuse is None else planned.reuse.plan.to_dict()
    return PlanView(
        domain_set=revision.domain_set.name,
        revision=revision.number,
        method=planned.checked.method.name,
        mixture_id=planned.reuse.mixture if planned.reuse else None,
        sentences=list(plan_sentences(document))
        if document
        else ["Nothing is trained, so nothing is reused."],
        hours=Hours(
            new=_hours(document.get("new_seconds")), recompute=_hours(document.get("recompute_seconds"))
        ),
        plan=document,
    )


def _hours(seconds: float | None) -> float | None:
    """Worker seconds as hours."""
    return None if seconds is None else seconds / 3600
