"""``/v1/launches``: the full training run of a mixture, started, described and stopped."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse, StreamingResponse

from service.http.events import EVENT_STREAM, Seen, stream
from service.http.idempotency import Changing, Creation, IdempotentRequest, KeyHeader, do_once
from service.http.limits import User
from service.http.routes import (
    RETRY_AFTER_SECONDS,
    ComputeDependency,
    DatabaseDependency,
    SettingsDependency,
    ThreadRoute,
    slow,
)
from service.http.schemas import After, Limit, Page
from service.launches.comparison import held_against
from service.launches.launchers import log_of, note_report
from service.launches.metrics import kept, launch_metrics, take_metrics
from service.launches.schemas import (
    KeptView,
    LaunchComparisonView,
    LaunchPlanView,
    LaunchRequest,
    LaunchView,
    MetricsRequest,
    ReportRequest,
)
from service.launches.service import (
    LAUNCHES,
    check_launches,
    describe_launch,
    describe_series,
    is_wide,
    plan_launch,
    restart_launch,
    stop_launch,
    store_launches,
)
from service.swarms.service import MetricView
from service.tokens import Scope
from service.training.device import check_counted, worker_device
from store import jobs
from store.engine import Database
from store.lifeline import tail


class _LaunchRoute(ThreadRoute):
    write = Scope.LAUNCH  # a full training run is spent


router = APIRouter(prefix="/v1/launches", tags=["launches"], route_class=_LaunchRoute)


@router.post(
    "",
    status_code=202,
    response_model=LaunchView | LaunchPlanView | Page[LaunchView] | Page[LaunchPlanView],
    responses={
        200: {"model": LaunchPlanView | Page[LaunchPlanView], "description": "With `dry_run`: what would be."}
    },
)
@slow
def create_launch(
    body: LaunchRequest, creation: Annotated[Creation, Depends()]
) -> LaunchView | LaunchPlanView | Page[LaunchView] | Page[LaunchPlanView]:
    """Train the full model on a mixture; of several budgets or seeds a model each."""
    database, settings, user = creation.database, creation.settings, creation.user
    checked = creation.compute(check_launches, body, settings)
    check_counted(settings, checked[0].document, "", creation.compute.ending)
    device = worker_device(settings)
    if creation.dry_run:
        creation.response.status_code = 200
        with database.read() as session:
            plans = [plan_launch(session, one, device, settings) for one in checked]
        return Page[LaunchPlanView](items=plans, next=None) if body.is_several else plans[0]
    launch_id = do_once(
        database,
        IdempotentRequest("launches", creation.key, body),
        lambda session: store_launches(session, checked, device, settings, user),
    )
    creation.response.headers["Location"] = f"/v1/launches/{launch_id}"
    creation.response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    if not body.is_several:
        return get_launch(launch_id, database)
    with database.read() as session:
        series = describe_series(session, launch_id) or [describe_launch(session, launch_id)]
    return Page[LaunchView](items=series, next=None)


@router.get("")
def list_launches(
    database: DatabaseDependency,
    optimization: Annotated[str | None, Query(max_length=64)] = None,
    after: After = None,
    limit: Limit = 50,
) -> Page[LaunchView]:
    """Launches, newest first; those of one optimization's mixtures if it is named."""
    with database.read() as session:
        return LAUNCHES.page(session, after, limit, optimization=optimization)


@router.get("/{launch_id}", response_model=LaunchView)
def get_launch(launch_id: str, database: DatabaseDependency) -> LaunchView:
    """One launch: its progress, then what was measured on its model."""
    with database.read() as session:
        return describe_launch(session, launch_id)


@router.get(
    "/{launch_id}/events",
    response_class=StreamingResponse,
    responses=EVENT_STREAM,
)
async def launch_events(launch_id: str, request: Request, database: DatabaseDependency) -> StreamingResponse:
    """Its document whenever it has changed, as server-sent events named `state`, until it has ended."""

    def look() -> Seen:
        view = get_launch(launch_id, database)
        data = view.model_dump_json().encode()
        return Seen(data, data, view.state in jobs.ENDED)

    return await stream(request, look)


@router.get(
    "/{launch_id}/log",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "The end of the log."}},
)
def launch_log(
    launch_id: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    length: Annotated[
        int, Query(alias="bytes", ge=1, le=2**20, description="How much of its end, at most.")
    ] = 2**16,
) -> PlainTextResponse:
    """What a launch's program has printed: the end of it, while it runs and after."""
    with database.read() as session:
        path = log_of(session, settings, launch_id)
    return PlainTextResponse(tail(path, length))


@router.post("/{launch_id}:cancel", status_code=202, response_model=LaunchView)
def cancel_launch(launch_id: str, database: DatabaseDependency, key: KeyHeader = None) -> LaunchView:
    """Stop it."""
    request = IdempotentRequest(f"launches/{launch_id}:cancel", key)
    do_once(database, request, lambda session: stop_launch(session, launch_id).id)
    return get_launch(launch_id, database)


@router.post("/{launch_id}/state", status_code=202, response_model=LaunchView)
def report_state(launch_id: str, body: ReportRequest, database: DatabaseDependency) -> LaunchView:
    """Say how a launch is that a webhook handed over; it is asked for nowhere else."""
    with database.write() as session:
        note_report(session, launch_id, body)
    return get_launch(launch_id, database)


@router.post("/{launch_id}:retry", status_code=202, response_model=LaunchView)
def retry_launch(launch_id: str, changing: Annotated[Changing, Depends()], user: User) -> LaunchView:
    """Go on with it, from its last checkpoint; it counts as yours from then on."""
    changing.once(
        f"launches/{launch_id}:retry",
        lambda session: restart_launch(session, launch_id, changing.settings, user),
    )
    return get_launch(launch_id, changing.database)


results = APIRouter(prefix="/v1/launches", tags=["launches"], route_class=ThreadRoute)
"""To send results takes the scope ``write``, which starts no training: a trainer somewhere has a token of its own."""


@results.get("/{launch_id}/metrics")
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


@results.post("/{launch_id}/metrics", response_model=KeptView)
def post_launch_metrics(
    launch_id: str, body: MetricsRequest, database: DatabaseDependency, key: KeyHeader = None
) -> KeptView:
    """Keep what a program's run measured; sent again, or measured again after a restart, the later value counts."""
    request = IdempotentRequest(f"launches/{launch_id}/metrics", key, body)
    do_once(database, request, lambda session: take_metrics(session, launch_id, body))
    with database.read() as session:
        return kept(session, launch_id, body)


@results.get("/{launch_id}/comparison", response_model=LaunchComparisonView)
def compare_launch(
    launch_id: str, database: DatabaseDependency, compute: ComputeDependency
) -> LaunchComparisonView:
    """It and its mixture's prediction side by side: predicted, interval, measured, inside or not."""
    with database.read() as session:
        wide = is_wide(session, launch_id)
    return compute.read(wide, _compared, database, launch_id)


def _compared(database: Database, launch_id: str) -> LaunchComparisonView:
    with database.read() as session:
        return held_against(session, launch_id)
