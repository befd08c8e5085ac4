"""Database connections of the web processes; all of them in use means that requests wait."""

from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool


def count_connections(engine: Engine, registry: CollectorRegistry) -> None:
    """Keep gauges of the connections of ``engine`` by state; of one without a pool there is nothing to count.

    Where several web processes share a port, each counts its own and what is answered is the sum over those alive.
    """
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return
    connections = Gauge(
        "mixwright_database_connections",
        "Connections of the web processes by state.",
        ("state",),
        registry=registry,
        multiprocess_mode="livesum",
    )
    in_use, idle = connections.labels("in_use"), connections.labels("idle")
    most = Gauge(
        "mixwright_database_connections_max",
        "Connections the web processes may open.",
        registry=registry,
        multiprocess_mode="livesum",
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
