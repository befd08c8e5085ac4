"""``/metrics`` for Prometheus.

Workers are other processes, on other machines perhaps, so what is said of jobs is read from the database at each
scrape: every web process answers the same, and nothing is lost when one is started again. What this process alone
knows (requests, its database connections, its memory) it counts itself.
"""

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from sqlalchemy.pool import QueuePool

from service.auth import require_token
from service.database.engine import Database
from service.dependencies import SettingsDependency
from service.errors import PROBLEM_CONTENT
from service.job_metrics import JobMetrics
from service.pool_metrics import PoolMetrics

router = APIRouter(tags=["health"])


def make_registry(database: Database) -> CollectorRegistry:
    """What one application tells Prometheus about its database, its process and Python."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(JobMetrics(database))
    if isinstance(database.engine.pool, QueuePool):
        registry.register(PoolMetrics(database.engine.pool))
    return registry


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
        require_token(request)
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
