"""The kill storm of `benchmarks.kill_storm` in small, on both ways to run the service."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.storm_blows import KILL, STOP, Plan, Storm
from benchmarks.storm_cluster import embedded, team
from benchmarks.storm_watch import Watch
from tests.faults.conftest import Swarm

pytestmark = pytest.mark.end_to_end
RUNS = 24


def storm(swarm: Swarm, plan: Plan) -> dict[str, int]:
    """Deal all blows while the swarm is trained; answers how many of each there were."""
    watch = Watch(swarm.database)
    generator = random.Random(0)
    blows = Storm(swarm.cluster, watch, plan, generator)
    order = plan.order(generator)
    for number, blow in enumerate(order):
        due = RUNS * number // (2 * len(order))
        swarm.wait_for(lambda due=due: swarm.succeeded() >= due, f"{due} runs")
        swarm.wait_for(lambda blow=blow: blows.deal(*blow), f"a process to hit: {blow}")
    blows.over()
    return blows.dealt


@pytest.mark.long
def test_ten_kills_lose_nothing_on_one_machine(
    service_settings: Callable[..., Any], running: Callable[..., Swarm], data: Path
) -> None:
    settings = service_settings(f"sqlite:///{data / 'mixwright.db'}", slots=3)
    swarm = running(embedded(settings))
    swarm.ask(RUNS)
    plan = Plan({(KILL, "child"): 6, (KILL, "worker"): 2, (KILL, "web"): 2, (STOP, "child"): 2})
    assert sum(storm(swarm, plan).values()) >= 12
    swarm.check_end(RUNS)


def test_ten_kills_lose_nothing_in_a_team(
    service_settings: Callable[..., Any], running: Callable[..., Swarm], own_database: str, own_redis: Any
) -> None:
    settings = service_settings(own_database, own_redis.url)
    swarm = running(team(settings, 3))
    swarm.ask(RUNS)
    kills = {"child": 4, "worker": 2, "pool": 2, "web": 1, "dispatcher": 1}
    plan = Plan({**{(KILL, target): number for target, number in kills.items()}, (STOP, "pool"): 2})
    assert sum(storm(swarm, plan).values()) >= 12
    swarm.check_end(RUNS)
