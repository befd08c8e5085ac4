"""``/metrics`` for Prometheus.

Workers are other processes, on other machines perhaps, so what is said of jobs is read from the database at each
scrape: every web process answers the same, and nothing is lost when one is started again. What this process alone
knows (requests, its database connections, its memory) it counts itself, or together with the others on its port.
"""

from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from service.http.auth import require_scope
from service.http.dependencies import SettingsDependency
from service.http.errors import PROBLEM_CONTENT
from service.observability.job_metrics import JobMetrics
from service.observability.pool_metrics import count_connections
from service.processes.web_processes import WebProcesses, shared_directory
from service.tokens.scopes import Scope
from store.engine import Database

router = APIRouter(tags=["health"])


@dataclass(frozen=True, slots=True)
class Registries:
    """Where this process counts, and what is answered; one and the same where it is the only web process."""

    counted: CollectorRegistry
    answered: CollectorRegistry


def make_registries(database: Database) -> Registries:
    """What one application tells Prometheus about its database, its process and Python.

    One of several workers (`service.processes.web_workers`) counts in files, and each answers for all of them.
    """
    counted = CollectorRegistry()
    if shared_directory() is None:
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=counted)
        answered = counted
    else:
        answered = CollectorRegistry()
        MultiProcessCollector(answered)
        PlatformCollector(registry=answered)
        answered.register(WebProcesses())
    answered.register(JobMetrics(database))
    count_connections(database.engine, counted)
    return Registries(counted, answered)


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
