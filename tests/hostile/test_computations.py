"""What a request computes is bounded in time and memory, ends when its client leaves, and keeps nobody else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from fastapi.testclient import TestClient

from service.http.limits import SLOW_THREADS
from service.optimizations import endpoints
from service.processes.computation import Busy, Computation, Computations, Patience, TooMuch
from store.engine import CONNECTIONS
from store.problems import NotFound, Problem, Unavailable
from store.settings import Settings
from tests.service.conftest import TOKEN

QUESTION = {
    "domain_set": "pool",
    "method": "olmix",
    "target_tokens": 2_000_000,
    "proxy": {"size": "nano-0.1M", "tokens": 65_536},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    return Settings(data_directory=tmp_path / "data", token=TOKEN, compute_processes=1, wait_seconds=0)


def computation(settings: Settings, **changed: Any) -> Computation:
    return Computation(Computations(settings.model_copy(update=changed)), Patience(0.0))


def never(*_: object) -> int:
    """As the worst of requests: it waits for a signal that does not come."""
    signal.pause()
    return 0


def nowhere(name: str) -> None:
    raise NotFound("domain set", name)


def test_it_is_computed_in_another_process_with_this_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAID_AFTERWARDS", "yes")
    compute = computation(settings)
    assert compute(os.getpid) not in (os.getpid(), compute(os.getpid))
    assert compute(os.getenv, "SAID_AFTERWARDS") == "yes"


def test_a_computation_waits_for_no_import() -> None:
    """Each runs the head of the web process's own module again: all it imports is there before it is forked."""
    program = (
        "import importlib, sys; from service.processes.computation import _PRELOADED\n"
        "for name in _PRELOADED:\n    importlib.import_module(name)\n"
        "before = set(sys.modules); import service.processes.web, service.processes.computation\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_what_takes_too_long_ends_and_says_which_setting_allows_more(settings: Settings) -> None:
    with pytest.raises(TooMuch, match="MIXWRIGHT_COMPUTE_SECONDS") as refused:
        computation(settings, compute_seconds=0.01)(never)
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "60"})


def test_what_needs_too_much_memory_ends_and_says_which_setting_allows_more(settings: Settings) -> None:
    small = computation(settings, compute_memory_bytes=2**26)
    with pytest.raises(TooMuch, match="MIXWRIGHT_COMPUTE_MEMORY_BYTES"):
        small(bytearray, 2**27)
    assert small(bytes, 2**20) == bytes(2**20)


def test_a_problem_found_there_is_the_answer_here(settings: Settings) -> None:
    with pytest.raises(Problem, match="no domain set 'pool'") as raised:
        computation(settings)(nowhere, "pool")
    assert (raised.value.status, raised.value.code) == (404, "domain_set_not_found")


def test_one_that_was_killed_is_no_answer_and_leaves_its_place(settings: Settings) -> None:
    compute = computation(settings)
    with pytest.raises(Unavailable, match="exit status 3"):
        compute(os._exit, 3)
    assert compute(os.getpid)


@contextmanager
def under_way(compute: Computation) -> Iterator[tuple[Future[int], psutil.Process]]:
    """One that never ends, and its process."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(compute, never)
        while compute._process is None and not asked.done():
            pass
        assert compute._process is not None
        assert compute._process.pid is not None
        try:
            yield asked, psutil.Process(compute._process.pid)
        finally:
            compute.leave()


def test_it_ends_with_its_client_and_while_it_is_there_the_next_is_told_to_come_again(
    settings: Settings,
) -> None:
    all_of_them = Computations(settings)
    first, second = (Computation(all_of_them, Patience(0.0)) for _ in range(2))
    with under_way(first) as (asked, process):
        with pytest.raises(Busy) as refused:
            second(os.getpid)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
        first.leave()
        with pytest.raises(Unavailable):
            asked.result()
        process.wait(60)
    assert second(os.getpid)
    with pytest.raises(Unavailable, match="Nobody waits"):
        first(os.getpid)


def test_a_program_that_a_request_waits_for_ends_with_its_client_too(settings: Settings) -> None:
    compute = computation(settings)

    def run(meanwhile: Callable[[], None]) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, text=True) as program, compute.ending(program):
            meanwhile()
            assert program.wait(60) == -signal.SIGKILL

    for meanwhile in (compute.leave, lambda: None):
        with pytest.raises(Unavailable, match="Nobody waits"):
            run(meanwhile)


def test_a_request_whose_client_leaves_is_computed_no_longer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "planned", never)
    computations: Computations = client.app.state.computations  # pyright: ignore[reportAttributeAccessIssue]
    started: list[Any] = []
    start = computations.start
    monkeypatch.setattr(computations, "start", lambda *given: (started.append(start(*given)), started[-1])[1])

    async def call() -> None:
        messages = [{"type": "http.request", "body": b'{"domain_set":"pool","target_tokens":5}'}]
        headers = {
            "host": "127.0.0.1",
            "content-type": "application/json",
            "authorization": f"Bearer {TOKEN}",
        }
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/optimizations",
            "raw_path": b"/v1/optimizations",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            while not started:
                await anyio.lowlevel.checkpoint()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        await client.app(scope, receive, send)  # pyright: ignore[reportGeneralTypeIssues]

    assert client.portal is not None
    client.portal.call(call)
    monkeypatch.undo()
    assert len(started) == 1
    assert client.post("/v1/optimizations", json=QUESTION).json()["code"] == "domain_set_not_found"


def test_however_many_compute_everybody_else_is_answered(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "planned", never)
    computations: Computations = client.app.state.computations  # pyright: ignore[reportAttributeAccessIssue]
    started = threading.Event()
    start = computations.start

    def noted(*given: Any) -> Any:
        made = start(*given)
        started.set()
        noted.made = made
        return made

    monkeypatch.setattr(computations, "start", noted)
    with ThreadPoolExecutor(CONNECTIONS + SLOW_THREADS) as pool:
        first = pool.submit(client.post, "/v1/optimizations", json=QUESTION)
        assert started.wait(60)
        others = [
            pool.submit(client.post, "/v1/optimizations", json=QUESTION) for _ in range(CONNECTIONS + 7)
        ]
        answers = [other.result() for other in others]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["code"] for answer in answers} == {"busy"}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert client.get("/v1/runs").status_code == 200
        connections = client.app.state.database.engine.pool  # pyright: ignore[reportAttributeAccessIssue]
        assert connections.checkedout() == 0
        noted.made[0].kill()
        assert first.result().json()["code"] == "computation_lost"
