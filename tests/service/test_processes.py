"""One service a data directory, kept running, and gone with whoever started it, however that one ends."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from click.testing import CliRunner

from service.cli import sign_in_link
from service.cli.main import main
from service.processes.address import AlreadyServed, PortInUse, ServeLock, ServiceRecord, listen
from service.processes.serving import KeptProcess, LocalService, StartFailed
from store.lifeline import tail
from store.settings import Settings

DEADLINE_SECONDS = 240.0


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """What ``condition`` answers once that is true; the deadline only bounds a failure."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")


def child(service: LocalService, module: str) -> psutil.Process | None:
    """The running child of the service that was started with ``-m module``."""
    for process in psutil.Process(service.pid).children():
        try:
            if module in process.cmdline():
                return process
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return None


def get(url: str, path: str, timeout: float = DEADLINE_SECONDS) -> int:
    """Status of a GET."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def service(data: Path) -> Iterator[LocalService]:
    with LocalService.start(data, 0) as started:
        yield started


def test_a_service_is_started_once_used_again_and_stopped_by_who_started_it(data: Path) -> None:
    first = LocalService.start(data, 0)
    with LocalService.start(data, 0) as again:
        assert (again.url, again.pid, again.token) == (first.url, first.pid, first.token)
        assert first.started_here
        assert not again.started_here
    assert get(first.url, "/healthz") == 200, "whoever only used it does not stop it"
    assert ServiceRecord.read(data) == ServiceRecord(first.url, first.pid)
    processes = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]

    first.stop()

    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_SECONDS)
    assert not alive
    assert ServiceRecord.read(data) is None
    assert not ServeLock.is_held(data)


def test_the_token_is_private_and_in_no_log(service: LocalService, data: Path) -> None:
    assert (data / "token").stat().st_mode & 0o777 == 0o600
    link = sign_in_link("", Settings(data_directory=data))
    assert get(service.url, link) == 303
    assert get(service.url, "/v1/domain-sets") == 401
    logs = {path.name: path.read_text() for path in (data / "logs").iterdir()}
    assert set(logs) == {"serve.log", "web.log", "supervisor.log"}
    secrets = (service.token, link.partition("=")[2])
    assert not [name for name, text in logs.items() if any(secret in text for secret in secrets)]


@pytest.mark.parametrize("module", ["service.processes.web", "workers.supervisor"])
def test_a_killed_child_is_started_again(service: LocalService, module: str) -> None:
    before = eventually(lambda: child(service, module), f"{module} runs")
    before.send_signal(signal.SIGKILL)

    # The listening socket outlives the web process: a request sent now waits instead of being refused.
    assert get(service.url, "/healthz") == 200
    after = eventually(lambda: child(service, module), f"{module} runs again")
    assert after.pid != before.pid


def test_a_killed_parent_takes_everything_with_it(data: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from service.processes.serving import LocalService;"
        "service = LocalService.start(Path(sys.argv[1]), 0); print(service.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        serve = psutil.Process(int(parent.stdout.readline()))
        processes = [serve, *serve.children(recursive=True)]
        assert len(processes) >= 3
        parent.kill()

    _, alive = psutil.wait_procs(processes, timeout=DEADLINE_SECONDS)
    assert not alive
    assert ServiceRecord.read(data) is None


def test_a_killed_service_can_be_started_again_on_its_port_at_once(data: Path) -> None:
    with LocalService.start(data, 0) as first:
        port = urlsplit(first.url).port
        assert port is not None
        children = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        psutil.Process(first.pid).wait(DEADLINE_SECONDS)
        with LocalService.start(data, port) as second:
            assert second.url == first.url
            assert second.pid != first.pid
            assert get(second.url, "/healthz") == 200
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_SECONDS)
    assert not alive


def test_a_port_in_use_is_named(data: Path) -> None:
    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)
        with pytest.raises(StartFailed, match=f"port {port} on 127.0.0.1 is in use"):
            LocalService.start(data, port)
    assert not ServeLock.is_held(data)


def test_a_child_that_never_comes_up_is_given_up_and_one_that_was_killed_is_not(data: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    failing = KeptProcess("broken", broken, os.environ, data / "broken.log")
    failing.start()
    eventually(lambda: failing.tend() and failing.never_came_up, "it is given up")
    assert tail(data / "broken.log", 2000).splitlines() == ["no such setting"] * 5

    killing = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    killed = KeptProcess("killed", killing, os.environ, data / "killed.log")
    killed.start()
    for _ in range(2):
        eventually(killed.tend, "its end is noticed")
    assert not killed.never_came_up
    killed.ask_to_stop()
    killed.wait_until_stopped(time.monotonic())


def test_a_data_directory_has_one_service(service: LocalService, data: Path) -> None:
    with pytest.raises(AlreadyServed, match=f"already served at {service.url}"), ServeLock(data):
        pytest.fail("the lock was given twice")
    outcome = CliRunner().invoke(main, ["serve", "--data", str(data), "--port", "0"])
    assert outcome.exit_code == 1
    assert f"already served at {service.url}" in outcome.output


def test_another_address_is_refused_without_a_token(data: Path) -> None:
    outcome = CliRunner().invoke(main, ["serve", "--data", str(data), "--host", "0.0.0.0", "--port", "0"])
    assert outcome.exit_code == 1
    assert "refusing to listen on 0.0.0.0 without a token" in outcome.output


def test_the_token_command_prints_the_token_of_the_service(service: LocalService, data: Path) -> None:
    outcome = CliRunner().invoke(main, ["token", "--data", str(data)])
    assert outcome.output.strip() == service.token


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["serve", "--slots", "0"], "--slots 0"),
        (
            ["serve", "--data-roots", "{tmp}/ty"],
            "--data-roots (MIXWRIGHT_DATA_ROOTS): there is no directory {tmp}/ty",
        ),
        (["serve", "--data", "{tmp}/file/data"], "{tmp}/file/data cannot be used (Not a directory)"),
        (["serve", "--data", "{tmp}/typo", "--slots", "0"], "--slots 0"),
        (["token", "--data", "{tmp}/typo"], "there is no data directory {tmp}/typo"),
        (["tokens", "list", "--data", "{tmp}/typo"], "there is no database in {tmp}/typo"),
        (["tokens", "create", "ann", "--data", "{tmp}/typo"], "there is no database in {tmp}/typo"),
    ],
)
def test_an_option_that_cannot_be_right_is_named_and_nothing_is_made(
    options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    outcome = CliRunner().invoke(main, [option.format(tmp=tmp_path) for option in options])
    assert (outcome.exit_code, outcome.exception.__class__) == (1, SystemExit), "no traceback"
    assert said.format(tmp=tmp_path) in outcome.output
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_neither_the_command_line_nor_the_web_process_imports_torch() -> None:
    program = (
        "import sys, service.cli.main, service.processes.serving, service.processes.web;"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_a_listener_says_where_it_can_be_reached() -> None:
    from service.processes.address import address

    with listen("0.0.0.0", 0) as everywhere:
        port = everywhere.getsockname()[1]
        assert address(everywhere) == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass
