"""Real services whose processes, broker, database, network and disk are taken away while they work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks.kill_storm import STORM_SETTINGS, settings_for
from benchmarks.own_redis import NoRedis, OwnRedis
from benchmarks.storm_checks import differing_files, violations
from benchmarks.storm_cluster import TOKEN, Cluster, wait_until
from benchmarks.storm_question import ask_domains, ask_swarm
from service.client import Client
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from tests.servers import scratch_database, skip_loudly

DEADLINE_SECONDS = 300.0
"""Only says when to give up."""
QUICK: dict[str, Any] = {**STORM_SETTINGS, "lease_seconds": 4.0}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A Redis that a test may kill."""
    try:
        server = OwnRedis(tmp_path)
    except NoRedis as error:
        skip_loudly(f"{error}: what becomes of a team whose broker dies")
    with server:
        yield server


@pytest.fixture
def own_database(postgres_server: str) -> Iterator[str]:
    """An empty database of PostgreSQL."""
    with scratch_database(postgres_server) as url:
        yield url


@pytest.fixture
def data(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def service_settings(data: Path) -> Callable[..., Settings]:
    """Settings of a service on a database that is brought to this version's schema."""

    def prepare(database: str, broker: str | None = None, **further: Any) -> Settings:
        settings = settings_for(data, database, broker, **{**QUICK, **further})
        upgrade(settings.resolved_database_url)
        return settings

    return prepare


class Swarm:
    """An optimization under way on a running service, and what the store says of it."""

    def __init__(self, cluster: Cluster, client: Client, database: Database) -> None:
        self.cluster, self.client, self.database = cluster, client, database
        self.optimization = ""

    def ask(self, runs: int, **further: Any) -> None:
        """Post the domains and the optimization."""
        ask_domains(self.client, self.cluster.settings.data_directory / "corpora")
        self.optimization = ask_swarm(self.client, 0, runs, **further)

    def count(self, condition: str) -> int:
        """Jobs of proxy runs for which an SQL condition holds."""
        with self.database.read() as session:
            query = f"SELECT count(*) FROM jobs WHERE kind = 'proxy_run' AND {condition}"
            return int(session.scalar(text(query)) or 0)

    def succeeded(self) -> int:
        """Runs with a result."""
        return self.count("state = 'succeeded'")

    def failures(self) -> list[tuple[str, str, str]]:
        """The kind, code and detail of every job that has failed."""
        with self.database.read() as session:
            query = "SELECT kind, failure_code, failure_detail FROM jobs WHERE state = 'failed'"
            return [(kind, code, detail) for kind, code, detail in session.execute(text(query))]

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Until it is true."""
        wait_until(condition, DEADLINE_SECONDS, what)

    def check_end(self, runs: int) -> None:
        """Wait for the end; then every run has finished, once, and nothing is left over or half written."""
        ended = ("succeeded", "failed", "cancelled")
        self.wait_for(lambda: self.client.optimization(self.optimization)["state"] in ended, "the end")
        assert self.failures() == []
        assert {name: count for name, count in violations(self.database).items() if count} == {}
        assert differing_files(self.database, self.cluster.settings.artifacts) == 0
        assert self.succeeded() == runs


@pytest.fixture
def running() -> Iterator[Callable[[Cluster], Swarm]]:
    """Start a cluster; all that was started is gone after the test."""
    with ExitStack() as stack:

        def start(cluster: Cluster, database_url: str | None = None) -> Swarm:
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster.url, TOKEN))
            database = Database(database_url or cluster.settings.resolved_database_url)
            stack.callback(database.close)
            return Swarm(cluster, client, database)

        yield start
