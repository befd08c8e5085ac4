"""Killing any process loses no finished run and changes no number."""

import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.client import Client
from service.processes.serving import LocalService

pytestmark = pytest.mark.end_to_end
ENDED = ("succeeded", "failed", "cancelled")


def processes_running(service: LocalService, module: str) -> list[psutil.Process]:
    """The service's descendants that run ``python -m <module>``."""
    return [process for process in _descendants(service) if module in _command(process)]


def _descendants(service: LocalService) -> Iterable[psutil.Process]:
    try:
        return psutil.Process(service.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def finished_runs(client: Client, optimization: dict[str, Any]) -> dict[str, Any]:
    """Run id -> what was stored, for the runs that have finished."""
    swarm_id = client.optimization(optimization["id"])["swarm_id"]
    runs = client.runs(swarm_id) if swarm_id else ()
    return {run["id"]: run for run in runs if run["state"] == "succeeded"}


def answer(client: Client, optimization: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The proposed mixture's document and every run's metrics in sampling order."""
    document = client.optimization(optimization["id"])
    assert document["state"] == "succeeded", document["failure"]
    metrics = [run["metrics"] for run in client.runs(document["swarm_id"])]
    return client.mixture(document["mixture_id"]), metrics


def test_killing_child_supervisor_web_and_service_changes_no_number(
    tmp_path: Path,
    start_service: Callable[[str], LocalService],
    ask: Callable[[Client, Path], dict[str, Any]],
    eventually: Callable[..., Any],
) -> None:
    undisturbed = start_service("undisturbed")
    with Client(undisturbed.url, undisturbed.token) as client:
        optimization = ask(client, tmp_path / "undisturbed")
        eventually(lambda: client.optimization(optimization["id"])["state"] in ENDED, "an end")
        expected_mixture, expected_metrics = answer(client, optimization)
    undisturbed.stop()

    service = start_service("killed")
    with Client(service.url, service.token) as client:
        optimization = ask(client, tmp_path / "killed")

        def training() -> list[psutil.Process]:
            running = client.optimization(optimization["id"])["progress"]["runs"]["running"]
            return processes_running(service, "workers.execution.child") if running else []

        for module in ("workers.execution.child", "workers.supervisor", "service.processes.web"):
            eventually(training, f"a run under way before {module} is killed")
            victim = processes_running(service, module)[0]
            victim.send_signal(signal.SIGKILL)
            eventually(lambda victim=victim: not victim.is_running(), f"the end of {module}")
        eventually(lambda: finished_runs(client, optimization), "a finished run")
        before = finished_runs(client, optimization)
        eventually(training, "a run under way before the whole service is killed")
    left_over = list(_descendants(service))
    psutil.Process(service.pid).send_signal(signal.SIGKILL)
    eventually(lambda: not any(process.is_running() for process in left_over), "the end of its children")

    again = start_service("killed")
    with Client(again.url, again.token) as client:
        assert ask(client, tmp_path / "killed")["id"] == optimization["id"]
        eventually(lambda: client.optimization(optimization["id"])["state"] in ENDED, "an end")
        mixture, metrics = answer(client, optimization)
        after = finished_runs(client, optimization)
    assert metrics == expected_metrics
    assert mixture["weights"] == expected_mixture["weights"]
    assert mixture["evidence"] == expected_mixture["evidence"]
    for run_id, run in before.items():
        assert after[run_id] == run, "a finished run was trained again"
