"""``/metrics`` for Prometheus.

Workers are other processes, on other machines perhaps, so what is said of jobs is read from the database at each
scrape: every web process answers the same, and nothing is lost when one is started again. What this process alone
knows (requests, its database connections, its memory) it counts itself.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool

from service.http.auth import require_scope
from service.http.errors import PROBLEM_CONTENT
from service.http.routes import SettingsDependency
from service.observability.job_metrics import JobMetrics
from service.tokens import Scope
from store.engine import Database

router = APIRouter(tags=["health"])


def make_registry(database: Database) -> CollectorRegistry:
    """What one application tells Prometheus about its database, its process and Python."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(JobMetrics(database))
    count_connections(database.engine, registry)
    return registry


def count_connections(engine: Engine, registry: CollectorRegistry) -> None:
    """Keep gauges of the connections of ``engine`` by state; of one without a pool there is nothing to count."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return
    connections = Gauge(
        "mixwright_database_connections",
        "Connections of this web process by state.",
        ("state",),
        registry=registry,
    )
    in_use, idle = connections.labels("in_use"), connections.labels("idle")
    most = Gauge(
        "mixwright_database_connections_max",
        "Connections this web process may open.",
        registry=registry,
    )
    most.set(pool.size() + pool._max_overflow)

    # One that was opened is idle until it is taken, and so is one that is closed.
    @event.listens_for(pool, "connect")
    def _opened(*_: Any) -> None:
        idle.inc()

    @event.listens_for(pool, "close")
    def _closed(*_: Any) -> None:
        idle.dec()

    @event.listens_for(pool, "checkout")
    def _taken(*_: Any) -> None:
        idle.dec()
        in_use.inc()

    @event.listens_for(pool, "checkin")
    def _given_back(*_: Any) -> None:
        in_use.dec()
        idle.inc()


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        401: {"content": PROBLEM_CONTENT, "description": "The token is missing."},
        200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
    },
)
def metrics(request: Request, settings: SettingsDependency) -> Response:
    """Counts, durations and queue lengths in Prometheus' text format; wants the token unless they are public."""
    if not settings.metrics_public:
        require_scope(request, Scope.READ)
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
