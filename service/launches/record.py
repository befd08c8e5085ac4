"""``/v1/domain-sets/{name}/record``: how well past predictions held, for who reads the next one."""

import statistics
from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.domain_sets.repository import domain_set_named, is_wide
from service.http.routes import ComputeDependency, DatabaseDependency, ThreadRoute
from service.launches.comparison import held_against
from service.launches.schemas import GainView
from store import jobs
from store.engine import Database
from store.tables import PROPOSED, Job, Launch, MixtureRow, Revision

MOST_HELD = 20
"""Launches that are looked at, the newest: each is held against megabytes of evidence."""

router = APIRouter(prefix="/v1/domain-sets", tags=["domain sets"], route_class=ThreadRoute)


class HeldGainView(BaseModel):
    """The gain of one launch over its natural twin, and how many of its tasks lay inside their intervals."""

    launch_id: str
    unit: str
    gain: GainView
    tasks: int = Field(description="Of the objective, with an interval.")
    tasks_inside: int


class HeldSummaryView(BaseModel):
    """How predictions of one kind held: the objective's gain inside its 90% interval in ``inside`` of ``launches``.

    ``median_error`` is in units of half an interval: up to 1 is inside.
    """

    launches: int
    inside: int
    tasks: int
    tasks_inside: int
    median_error: float | None
    median_width: float | None = Field(description="Of the intervals; null where launches differ in unit.")


class RecordView(BaseModel):
    """The newest pairs of launches that measured a gain, against what had been predicted.

    ``planned`` are the runs that the predictions speak of: the target's, or one as the proxies; ``larger`` are held
    against what a proxy was predicted to gain, for want of a target.
    """

    planned: HeldSummaryView
    larger: HeldSummaryView
    planned_launches: list[HeldGainView]
    larger_launches: list[HeldGainView]


@router.get("/{name}/record")
def get_record(name: str, database: DatabaseDependency, compute: ComputeDependency) -> RecordView:
    """How well the predictions held that were made over the domain set's revisions."""
    with database.read() as session:
        wide = is_wide(session, name)
    return compute.read(wide, _record, database, name)


def _record(database: Database, name: str) -> RecordView:
    with database.read() as session:
        return record_of(session, name)


def record_of(session: Session, name: str) -> RecordView:
    """Of a domain set; raises NotFound."""
    newest = (
        select(Launch.id)
        .join(MixtureRow, MixtureRow.id == Launch.mixture_id)
        .join(Revision, Revision.id == MixtureRow.revision_id)
        .join(Job, Job.owner == Launch.id)
        .where(
            Revision.domain_set_id == domain_set_named(session, name).id,
            MixtureRow.kind.startswith(PROPOSED),
            Job.state == jobs.SUCCEEDED,
        )
        .order_by(Launch.id.desc())
        .limit(MOST_HELD)
    )
    planned: list[HeldGainView] = []
    larger: list[HeldGainView] = []
    for launch_id in session.scalars(newest):
        held = held_against(session, launch_id)
        if not held.rows or held.rows[0].gain.is_inside is None:
            continue
        objective, *tasks = held.rows
        judged = [row.gain.is_inside for row in tasks if row.weight and row.gain.is_inside is not None]
        row = HeldGainView(
            launch_id=launch_id,
            unit=objective.unit,
            gain=objective.gain,
            tasks=len(judged),
            tasks_inside=sum(judged),
        )
        (planned if held.is_target or held.is_proxy else larger).append(row)
    return RecordView(
        planned=summarised(planned),
        larger=summarised(larger),
        planned_launches=planned,
        larger_launches=larger,
    )


def summarised(held: Sequence[HeldGainView]) -> HeldSummaryView:
    """How those held, as one."""
    errors: list[float] = []
    widths: list[float] = []
    for row in held:
        if row.gain.interval is not None and row.gain.measured is not None:
            low, high = row.gain.interval
            widths.append(high - low)
            away = abs(row.gain.measured - (low + high) / 2)
            if high > low:
                errors.append(2 * away / (high - low))
    is_one_unit = len({row.unit for row in held}) == 1
    return HeldSummaryView(
        launches=len(held),
        inside=sum(bool(row.gain.is_inside) for row in held),
        tasks=sum(row.tasks for row in held),
        tasks_inside=sum(row.tasks_inside for row in held),
        median_error=statistics.median(errors) if errors else None,
        median_width=statistics.median(widths) if is_one_unit and widths else None,
    )
