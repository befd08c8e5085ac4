"""``/v1/launches/{id}/metrics`` and ``/comparison``: what came of a launch.

To send results takes the scope ``write``, which starts no training: a trainer somewhere has a token of its own.
"""

from typing import Annotated

from fastapi import APIRouter, Query

from service.http.idempotency import IdempotentRequest, KeyHeader, do_once
from service.http.routes import DatabaseDependency, ThreadRoute
from service.http.schemas import Limit, Page
from service.launches.metrics import kept, launch_metrics, take_metrics
from service.launches.predictions import held_against
from service.launches.schemas import KeptView, LaunchComparisonView, MetricsRequest
from service.swarms.service import MetricView

router = APIRouter(prefix="/v1/launches", tags=["launches"], route_class=ThreadRoute)


@router.get("/{launch_id}/metrics")
def list_launch_metrics(
    launch_id: str,
    database: DatabaseDependency,
    after: Annotated[str | None, Query(max_length=300, description="The `next` of the page before.")] = None,
    limit: Limit = 200,
    points: Annotated[
        int | None,
        Query(ge=2, le=500, description="Instead of pages: every series thinned to about so many."),
    ] = None,
) -> Page[MetricView]:
    """What was measured while it trains, and since: tasks, and `training/loss` and the like."""
    with database.read() as session:
        return launch_metrics(session, launch_id, after, limit, points)


@router.post("/{launch_id}/metrics", response_model=KeptView)
def post_launch_metrics(
    launch_id: str, body: MetricsRequest, database: DatabaseDependency, key: KeyHeader = None
) -> KeptView:
    """Keep what a program's run measured; sent again, or measured again after a restart, the later value counts."""
    request = IdempotentRequest(f"launches/{launch_id}/metrics", key, body)
    do_once(database, request, lambda session: take_metrics(session, launch_id, body))
    with database.read() as session:
        return kept(session, launch_id, body)


@router.get("/{launch_id}/comparison", response_model=LaunchComparisonView)
def compare_launch(launch_id: str, database: DatabaseDependency) -> LaunchComparisonView:
    """It and its mixture's prediction side by side: predicted, interval, measured, inside or not."""
    with database.read() as session:
        return held_against(session, launch_id)
