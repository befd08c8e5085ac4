"""What is measured of a launch: kept as it comes, read as pages or as thinned curves."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.http.schemas import Page, view_of
from service.launches.schemas import KeptView, MetricsRequest
from service.swarms.service import MetricView, metric_page
from store.documents import LaunchDocument, Measurements
from store.problems import Conflict, Invalid, existing
from store.series import TRAINING_PREFIX, keep_metrics, measured_names
from store.tables import Job, Launch, Metric, Run

MOST_VALUES = 20_000
"""Of thinned curves, all of a launch's together."""
_NAMED = 8


def run_of_launch(session: Session, launch_id: str) -> Run:
    """The run of a launch; raises NotFound."""
    return existing(session.scalar(select(Run).where(Run.launch_id == launch_id)), "launch", launch_id)


def take_metrics(session: Session, launch_id: str, request: MetricsRequest) -> str:
    """Keep them, all or none, a later value in the place of an earlier one; answers the launch's id.

    Raises:
        NotFound: no such launch.
        Conflict: the launch trains and measures here.
        Invalid: a name that is none of the launch's, or a value that no metric of its kind has.
    """
    launch = existing(session.get(Launch, launch_id), "launch", launch_id)
    document = LaunchDocument.of(launch)
    if not document.is_program:
        raise Conflict("measured_here", "The built-in trainer measures its launches itself.")
    known = dict.fromkeys(measured_names(document, launch.mixture.revision))
    shares = {task.name for task in document.tasks if task.metric == "accuracy"}
    for index, point in enumerate(request.points):
        _check(point.metrics, known, shares, f"points[{index}].metrics", TRAINING_PREFIX)
    _check(request.final, known, shares, "final")
    run = run_of_launch(session, launch_id)
    keep_metrics(
        session,
        run.id,
        (
            {"step": point.step, "tokens": point.tokens, "task": name, "value": value}
            for point in request.points
            for name, value in point.metrics.items()
        ),
    )
    if request.final:
        locked = session.scalars(select(Job).where(Job.owner == launch_id).with_for_update()).all()
        assert locked, "a launch has a job, whose end writes the run's result as well"
        session.refresh(run)
        before = (run.result or {}).get("final", {})
        run.result = {**(run.result or {}), "final": {**before, **request.final}}
    return launch_id


def _check(
    metrics: Mapping[str, float],
    known: Mapping[str, None],
    shares: set[str],
    field: str,
    free: str | None = None,
) -> None:
    for name, value in metrics.items():
        if name not in known and not (free and name.startswith(free)):
            tasks = ", ".join(list(known)[:_NAMED])
            raise Invalid(
                "unknown_metric",
                f"{name!r} is none of what is measured of the launch ({tasks})"
                f"{f', nor begins with {free}' if free else ''}.",
                f"{field}.{name}",
                names=[name],
            )
        if name in shares and not 0 <= value <= 1:
            raise Invalid(
                "no_share",
                f"{value} for {name!r}: an accuracy is a share of 1"
                f"{'; divide percent by 100' if 1 < value <= 100 else ''}.",
                f"{field}.{name}",
                names=[name],
            )


def kept(session: Session, launch_id: str, request: MetricsRequest) -> KeptView:
    """What is said of a request that was kept."""
    final = Measurements.of(run_of_launch(session, launch_id).result).final
    return KeptView(kept=sum(len(point.metrics) for point in request.points), final=dict(final))


def launch_metrics(
    session: Session, launch_id: str, after: str | None, limit: int, points: int | None
) -> Page[MetricView]:
    """A page of all values, or with ``points`` every series thinned to about so many; raises NotFound, Invalid."""
    run = run_of_launch(session, launch_id)
    if points is None:
        return metric_page(session, run.id, after, limit)
    if after is not None:
        raise Invalid("bad_cursor", "Thinned curves have no pages: leave out points, or after.", "after")
    return Page(items=thinned(session, run.id, points), next=None)


def thinned(
    session: Session, run_id: str, points: int, names: Sequence[str] | None = None
) -> list[MetricView]:
    """Every so manyth value of each series, its last one among them, by step."""
    counted = select(func.count(func.distinct(Metric.task))).where(Metric.run_id == run_id)
    most = max(1, min(points, MOST_VALUES // max(1, session.scalar(counted) or 0)))
    number = func.row_number().over(partition_by=Metric.task, order_by=Metric.step)
    total = func.count().over(partition_by=Metric.task)
    query = select(
        Metric.step, Metric.tokens, Metric.task, Metric.value, number.label("number"), total.label("total")
    ).where(Metric.run_id == run_id)
    if names is not None:
        query = query.where(Metric.task.in_(names))
    rows = query.subquery()
    gap = (rows.c.total + most - 1) // most
    chosen = (
        select(rows.c.step, rows.c.tokens, rows.c.task, rows.c.value)
        .where((rows.c.total - rows.c.number) % gap == 0)
        .order_by(rows.c.step, rows.c.task)
    )
    return [view_of(MetricView, row) for row in session.execute(chosen)]
