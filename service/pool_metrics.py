"""Database connections of this web process."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.pool import QueuePool


class PoolMetrics(Collector):
    """Connections in use and idle, and how many there may be; all in use means that requests wait."""

    def __init__(self, pool: QueuePool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families, now."""
        connections = GaugeMetricFamily(
            "mixwright_database_connections", "Connections of this process by state.", labels=("state",)
        )
        connections.add_metric(("in_use",), self._pool.checkedout())
        connections.add_metric(("idle",), self._pool.checkedin())
        yield connections
        yield GaugeMetricFamily(
            "mixwright_database_connections_max",
            "Connections this process may open.",
            value=self._pool.size() + self._pool._max_overflow,
        )
