"""``/metrics`` for Prometheus.

Workers are other processes, on other machines perhaps, so what is said of jobs is read from the database at each
scrape: every web process answers the same, and nothing is lost when one is started again. What this process alone
knows (requests, its database connections, its memory) it counts itself.
"""

import threading
from collections.abc import Iterable, Iterator
from itertools import groupby, product

from cachetools import TTLCache
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
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, case, func, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from service.http.auth import principal_of, with_scope
from service.http.errors import PROBLEM_CONTENT
from service.http.routes import SettingsDependency
from service.swarms.service import RunProgress
from service.tokens import Scope
from store import jobs
from store.engine import Database
from store.tables import Attempt, Job, database_now

CACHE_SECONDS = 1.0
BUCKETS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
"""Upper bounds of an attempt's seconds: a fit takes one, a full run a day."""
STATES = (*jobs.LIVE, *jobs.ENDED)
_RUNS = (jobs.PROXY_RUN, jobs.FULL_RUN, jobs.SCHEDULED_RUN)


class JobMetrics(Collector):
    """The store's metrics; scrapes within a second of each other read it once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._families: TTLCache[object, list[Metric]] = TTLCache(1, CACHE_SECONDS)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read the store."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Every family, at most `CACHE_SECONDS` old."""
        with self._guard:
            if (families := self._families.get("all")) is None:
                with self._database.read() as session:
                    families = self._families["all"] = [
                        *(*_job_families(session), *_attempt_families(session), *_launch_families(session))
                    ]
            return families


def _job_families(session: Session) -> Iterator[Metric]:
    query = select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)
    counts = {(kind, state): number for kind, state, number in session.execute(query)}
    by_kind = GaugeMetricFamily("mixwright_jobs", "Jobs by kind and state.", labels=("kind", "state"))
    for kind, state in product(jobs.PRIORITY, STATES):
        by_kind.add_metric((kind, state), counts.get((kind, state), 0))
    yield by_kind
    runs = GaugeMetricFamily("mixwright_runs", "Proxy runs and full runs by state.", labels=("state",))
    for state in STATES:
        runs.add_metric((state,), sum(counts.get((kind, state), 0) for kind in _RUNS))
    yield runs
    yield from _waiting_families(session)


def _waiting_families(session: Session) -> Iterator[Metric]:
    now = database_now()
    waiting = select(Job.kind, now - func.min(Job.available_at)).where(
        Job.state == jobs.QUEUED, Job.available_at <= now
    )
    oldest: dict[str, float] = dict(session.execute(waiting.group_by(Job.kind)).all())
    age = GaugeMetricFamily(
        "mixwright_oldest_waiting_job_seconds",
        "How long the job that waits longest could have been claimed.",
        labels=("kind",),
    )
    for kind in jobs.PRIORITY:
        age.add_metric((kind,), oldest.get(kind, 0.0))
    yield age
    expired = select(func.count()).where(Job.state.in_(jobs.HELD), Job.lease_expires_at < now)
    yield GaugeMetricFamily(
        "mixwright_expired_leases",
        "Leases that ran out and were not taken back yet; more than none for long: nobody reaps.",
        value=session.scalar(expired) or 0,
    )


_OF_LAUNCH = {
    "tokens": ("done", "Tokens trained so far."),
    "tokens_to_train": ("total", "Tokens it trains in all."),
    "tokens_per_second": ("tokens_per_second", "Tokens trained a second, all its processes together."),
    "model_flops_utilization": ("mfu", "Share of what large products reach on its devices."),
    "loss": ("loss", "Loss of the last step, in nats a token."),
    "seconds_left": ("seconds_left", "Time left at its rate so far."),
}
"""Gauge -> member of its progress."""


def _launch_families(session: Session) -> Iterator[Metric]:
    query = select(Job.owner, Job.progress).where(
        Job.kind.in_(jobs.OF_LAUNCHES), Job.state.in_(jobs.HELD), Job.progress.is_not(None)
    )
    running = [
        (launch, RunProgress.model_validate(progress).model_dump())
        for launch, progress in session.execute(query.order_by(Job.owner))
        if progress and {"done", "total"} <= progress.keys()
    ]
    for name, (member, described) in _OF_LAUNCH.items():
        gauge = GaugeMetricFamily(f"mixwright_launch_{name}", described, labels=("launch",))
        for launch, progress in running:
            if progress[member] is not None:
                gauge.add_metric((launch,), float(progress[member]))
        yield gauge


def _attempt_families(session: Session) -> Iterator[Metric]:
    within = [func.sum(case((Attempt.seconds <= bound, 1), else_=0)) for bound in BUCKETS]
    query = (
        select(
            Attempt.kind,
            Attempt.outcome,
            func.coalesce(Attempt.failure_code, ""),
            Attempt.reaped,
            func.count(),
            func.sum(Attempt.seconds),
            func.coalesce(func.sum(Attempt.tokens), 0),
            *within,
        )
        .group_by(Attempt.kind, Attempt.outcome, Attempt.failure_code, Attempt.reaped)
        .order_by(Attempt.kind, Attempt.outcome)
    )
    rows = [tuple(row) for row in session.execute(query)]
    attempts = CounterMetricFamily(
        "mixwright_job_attempts",
        "Attempts that ended, by outcome and, where one failed, its code.",
        labels=("kind", "outcome", "code", "reaped"),
    )
    expiries = CounterMetricFamily(
        "mixwright_lease_expiries", "Leases that ran out and were taken back.", labels=("kind",)
    )
    tokens = CounterMetricFamily(
        "mixwright_tokens_trained", "Tokens of runs that succeeded.", labels=("kind",)
    )
    for kind, outcome, code, reaped, count, *_ in rows:
        attempts.add_metric((kind, outcome, code, "true" if reaped else "false"), count)
    for kind in jobs.PRIORITY:
        expiries.add_metric((kind,), sum(row[4] for row in rows if row[0] == kind and row[3]))
    for kind in _RUNS:
        tokens.add_metric((kind,), int(sum(row[6] for row in rows if row[0] == kind)))
    yield from (attempts, expiries, tokens, _durations(rows))


def _durations(rows: list[tuple]) -> HistogramMetricFamily:
    """Seconds of attempts by kind and outcome; ``rows`` are in that order."""
    seconds = HistogramMetricFamily(
        "mixwright_job_attempt_seconds",
        "Seconds from a claim to the attempt's end.",
        labels=("kind", "outcome"),
    )
    for labels, group in groupby(rows, key=lambda row: row[:2]):
        columns = list(zip(*(row[4:] for row in group), strict=True))
        counts, sums, within = sum(columns[0]), sum(columns[1]), columns[3:]
        bounds = [(str(bound), float(sum(column))) for bound, column in zip(BUCKETS, within, strict=True)]
        seconds.add_metric(labels, buckets=[*bounds, ("+Inf", float(counts))], sum_value=sums)
    return seconds


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
    connections.labels("in_use").set_function(pool.checkedout)
    connections.labels("idle").set_function(pool.checkedin)
    most = Gauge(
        "mixwright_database_connections_max",
        "Connections this web process may open.",
        registry=registry,
    )
    most.set(pool.size() + pool._max_overflow)


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
        with_scope(request, principal_of(request), Scope.READ)
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
