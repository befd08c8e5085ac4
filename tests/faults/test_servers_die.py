"""The broker, the database and the network between go away while a swarm is trained, and every run finishes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import make_url, text

from benchmarks.own_redis import OwnRedis
from benchmarks.storm_cluster import team
from tests.faults.conftest import Swarm
from tests.faults.cutting_proxy import CuttingProxy
from tests.faults.own_postgres import OwnPostgres, own_postgres
from tests.servers import scratch_database, skip_loudly
from tests.temporary_servers import NoBinary

pytestmark = pytest.mark.end_to_end
RUNS = 12
WORKERS = 2


@pytest.fixture
def postgres() -> Iterator[OwnPostgres]:
    try:
        with own_postgres() as server:
            yield server
    except NoBinary as error:
        skip_loudly(f"{error}: what becomes of a team whose database dies")


def waiting_hints(broker: OwnRedis) -> int:
    client = redis.Redis.from_url(broker.url)
    lengths = [client.llen(key) for key in client.keys("mixwright.train*") if client.type(key) == b"list"]
    client.close()
    return sum(lengths)


@pytest.fixture
def swarm_of_a_team(
    service_settings: Callable[..., Any],
    running: Callable[..., Swarm],
    own_database: str,
    own_redis: OwnRedis,
) -> Swarm:
    swarm = running(team(service_settings(own_database, own_redis.url), WORKERS))
    swarm.ask(RUNS)
    return swarm


def test_a_broker_killed_with_a_full_queue_and_back_empty_loses_nothing(
    swarm_of_a_team: Swarm, own_redis: OwnRedis
) -> None:
    swarm = swarm_of_a_team
    swarm.wait_for(lambda: swarm.succeeded() and waiting_hints(own_redis), "a run, and hints that wait")
    own_redis.kill()
    swarm.wait_for(lambda: swarm.count("state <> 'queued'") > WORKERS, "work that goes on without a broker")
    own_redis.start()
    assert waiting_hints(own_redis) == 0
    swarm.check_end(RUNS)


def test_a_broker_that_hangs_does_not_stop_the_dispatcher(
    swarm_of_a_team: Swarm, own_redis: OwnRedis
) -> None:
    swarm = swarm_of_a_team
    swarm.wait_for(swarm.succeeded, "a run")
    own_redis.hang()
    last = dispatcher_beat(swarm)
    for number in range(2):  # the first may have been under way
        swarm.wait_for(lambda last=last: dispatcher_beat(swarm) > last, f"beat {number + 1}")
        last = dispatcher_beat(swarm)
    own_redis.go_on()
    swarm.check_end(RUNS)


def dispatcher_beat(swarm: Swarm) -> float:
    with swarm.database.read() as session:
        query = text("SELECT seen_at FROM workers WHERE name LIKE '%/dispatcher'")
        return float(session.scalar(query) or 0.0)


def test_a_database_that_restarts_and_one_that_crashes_lose_nothing(
    service_settings: Callable[..., Any],
    running: Callable[..., Swarm],
    postgres: OwnPostgres,
    own_redis: OwnRedis,
) -> None:
    swarm = running(team(service_settings(postgres.url, own_redis.url), WORKERS))
    swarm.ask(RUNS)
    for number, mode in enumerate(("fast", "immediate")):
        due = RUNS * (number + 1) // 4
        swarm.wait_for(lambda due=due: swarm.succeeded() >= due and swarm.count("state = 'running'"), "work")
        postgres.stop(mode)
        postgres.start()
        swarm.database.close()  # what this test still had open
    swarm.check_end(RUNS)


@pytest.mark.long
def test_connections_that_are_reset_lose_nothing(
    service_settings: Callable[..., Any],
    running: Callable[..., Swarm],
    postgres_server: str,
    own_redis: OwnRedis,
) -> None:
    with scratch_database(postgres_server) as direct:
        url = make_url(direct)
        if url.host is None:
            skip_loudly("PostgreSQL answers on a socket only: what becomes of connections that are reset")
        with CuttingProxy(url.port or 5432) as store, CuttingProxy(own_redis.port) as broker:
            cut = url.set(host="127.0.0.1", port=store.port).render_as_string(hide_password=False)
            settings = service_settings(cut, f"redis://127.0.0.1:{broker.port}/0")
            swarm = running(team(settings, WORKERS), direct)
            swarm.ask(RUNS)
            for number in range(6):
                due = RUNS * number // 8
                swarm.wait_for(lambda due=due: swarm.succeeded() >= due, f"{due} runs")
                swarm.wait_for(lambda: swarm.count("state = 'running'"), "a run under way")
                swarm.wait_for(store.cut, "a connection to the database")
                swarm.wait_for(broker.cut, "a connection to the broker")
            swarm.check_end(RUNS)
            swarm.cluster.stop()
            assert store.cuts > 6
            assert broker.cuts > 6
