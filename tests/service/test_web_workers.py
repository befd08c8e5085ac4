"""Several web processes on one port are one service: any of them answers, and for all of them in ``/metrics``."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from store.schema.migrate import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN

WORKERS = 3
DEADLINE_SECONDS = 240.0


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@dataclass(frozen=True)
class Service:
    url: str
    process: psutil.Process

    def get(self, path: str) -> httpx.Response:
        """Over a connection of its own, which any of the processes may accept."""
        return httpx.get(
            self.url + path,
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=DEADLINE_SECONDS,
            trust_env=False,
        )

    def workers(self) -> list[psutil.Process]:
        return [one for one in self.process.children() if _lives(one)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended since its parent was asked
        return False


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    upgrade(settings.resolved_database_url)
    command = [sys.executable, "-m", "service.cli.main", "web", "--workers", str(WORKERS), "--port", "0"]
    environment = {**os.environ, **settings.environment(), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = re.match(r"Dashboard: (http://[^/]+)/", process.stdout.readline())
            assert said is not None
            service = Service(said.group(1), psutil.Process(process.pid))
            eventually(lambda: number(service, "mixwright_web_processes") == WORKERS, "all of them answer")
            yield service
        finally:
            process.terminate()


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` answers once that is true; the deadline only bounds a failure."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
    raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")


def number(service: Service, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    samples = [
        one
        for family in text_string_to_metric_families(service.get("/metrics").text)
        for one in family.samples
    ]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def listed(service: Service) -> float:
    return number(service, "mixwright_http_request_seconds_count", route="/v1/runs")


def test_whoever_is_asked_has_counted_what_all_of_them_answered(service: Service) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(service.get, ["/v1/runs"] * 60))
    assert {one.status_code for one in answers} == {200}
    # Who answers has its own count first and the others' from their files; asked often enough, all of them answer.
    assert {listed(service) for _ in range(10)} == {60.0}
    assert number(service, "mixwright_database_connections_max") == WORKERS * 16
    used = number(service, "process_resident_memory_bytes")
    memory = [one.memory_info().rss for one in service.workers()]
    assert max(memory) < used < 1.5 * sum(memory)
    assert number(service, "process_cpu_seconds_total") > 0


def test_a_worker_that_is_killed_is_started_again_and_its_requests_stay_counted(service: Service) -> None:
    for _ in range(12):
        assert service.get("/v1/runs").status_code == 200
    before = {one.pid for one in service.workers()}
    assert len(before) == WORKERS
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: len({one.pid for one in service.workers()} - before) == WORKERS, "new processes are started"
    )
    eventually(lambda: number(service, "mixwright_web_processes") == WORKERS, "and answer")
    assert listed(service) == 12
    assert number(service, "mixwright_database_connections_max") == WORKERS * 16, "the dead have none"


def test_all_of_them_end_with_the_process_that_was_started(service: Service) -> None:
    workers = service.workers()
    service.process.terminate()
    _, alive = psutil.wait_procs([service.process, *workers], DEADLINE_SECONDS)
    assert alive == []


def test_none_is_left_when_that_process_is_killed(service: Service) -> None:
    workers = service.workers()
    service.process.kill()
    _, alive = psutil.wait_procs(workers, DEADLINE_SECONDS)
    assert alive == []
