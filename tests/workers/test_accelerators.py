"""Which devices a worker may be given, what it shares them with, and what becomes of one that torch cannot use."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from sqlalchemy import select

from service.training.device import worker_device
from store.engine import Database
from store.settings import Settings
from store.tables import WorkerRow
from tests.workers.test_waves import add_swarm, prepared, revision_id  # noqa: F401 - fixtures
from workers.claims.claim import claim
from workers.claims.failures import DEVICE_FAILED, Failure
from workers.claims.registry import PAUSED
from workers.claims.slots import slots_of
from workers.execution.child_handle import Child, ChildDied
from workers.execution.execute import Worker
from workers.execution.waves import wave_for
from workers.supervisor import supervise

Until = Callable[..., None]
EIGHT = ",".join(f"cuda:{index}" for index in range(8))
without_cuda = pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this torch is built for CUDA")


class Questioned(Child):
    """A child that keeps what it is asked, and gives no answer."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[dict[str, Any]] = []

    def order(self, kind: str, specs: Any, *rest: Any, **named: Any) -> None:
        self.questions.extend(specs)
        raise ChildDied(1)


@pytest.mark.parametrize(
    ("device", "fault"),
    [
        ("mps", "'mps'"),
        ("cuda:0,cuda:0", "'cuda:0' is named twice"),
        ("cuda,cuda:0", "'cuda:0' is named twice"),
        ("cpu,cuda:0", "'cpu'"),
        ("", "''"),
        ("cuda:0,", "''"),
        ("cuda:x", "'cuda:x'"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_by_name(device: str, fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Settings(device=device)


def test_what_was_read_of_settings_plays_no_part_in_a_copy(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, device=EIGHT, artifact_store=str(tmp_path / "store"))
    assert len(settings.accelerators) == 8
    assert (settings.resolved_database_url, settings.roots, settings.store) != (None, (), None)
    elsewhere = tmp_path / "elsewhere"
    changes = {
        "device": "cuda:3",
        "data_directory": elsewhere,
        "artifact_store": (tmp_path / "other").as_uri(),
    }
    copy, fresh = settings.model_copy(update=changes), Settings(**changes)
    for name in ("accelerators", "training_slots", "resolved_database_url", "roots", "store"):
        assert getattr(copy, name) == getattr(fresh, name)
    assert [slot.device for slot in slots_of(copy)] == [slot.device for slot in slots_of(fresh)]


@pytest.mark.parametrize(
    ("device", "slots", "sharing", "runs"),
    [
        ("cpu", 4, 4, 6),  # the slots on CPUs have one memory, and share what waits
        ("cpu", 1, 1, 24),
        ("cuda", 4, 1, 24),  # an accelerator has its own memory, whatever its machine's CPUs do beside it
        ("cuda:1", 16, 1, 24),
        (EIGHT, 4, 1, 3),  # and eight of them share nothing but what waits
        (EIGHT, 0, 1, 3),
    ],
)
def test_memory_is_shared_by_the_slots_of_one_device_and_runs_by_those_of_the_machine(
    sqlite: Database,
    revision_id: str,  # noqa: F811 - a fixture
    tmp_path: Path,
    device: str,
    slots: int,
    sharing: int,
    runs: int,
) -> None:
    add_swarm(sqlite, revision_id, [{"mail": 0.5, "web": 0.5}] * 24)
    settings = Settings(data_directory=tmp_path, device=device, slots=slots)
    slot = slots_of(settings)[-1 if device == "cpu" else 0]
    worker = Worker(sqlite, settings, threading.Event(), slot=slot)
    claimed = claim(sqlite, "tester", 30.0)
    assert claimed is not None
    child = Questioned()
    wave_for(worker, claimed, 24, child)
    (question,) = child.questions
    assert (question["sharing"], question["runs"]) == (sharing, runs)
    assert question["run"]["device"] == slot.device
    assert worker_device(settings).room.processes == sharing, (
        "SQLite: the web process estimates for this machine"
    )


@without_cuda
def test_what_torch_says_of_a_missing_accelerator_is_the_devices_fault() -> None:
    with pytest.raises(AssertionError) as caught:
        torch.zeros(1, device="cuda")
    assert Failure.of(caught.value) == Failure(DEVICE_FAILED, "Torch not compiled with CUDA enabled", True)
    for fault in ("No CUDA GPUs are available", "Found no NVIDIA driver on your system.", "CUDA error: ECC"):
        assert Failure.of(RuntimeError(fault)).code == DEVICE_FAILED
    assert Failure.of(AssertionError("a bug of ours")).code == "internal_error"


@without_cuda
def test_a_device_on_which_every_run_fails_is_paused(
    sqlite: Database,
    revision_id: str,  # noqa: F811 - a fixture
    tmp_path: Path,
    until: Until,
) -> None:
    add_swarm(sqlite, revision_id, [{"mail": 0.5, "web": 0.5}] * 3)
    settings = Settings(
        data_directory=tmp_path,
        device="cuda",
        slots=0,
        backend="one-by-one",
        wave_members=1,
        poll_seconds=0.05,
    )
    stopping = threading.Event()
    thread = threading.Thread(target=supervise, args=(settings, stopping))
    thread.start()

    def is_paused() -> bool:
        with sqlite.read() as session:
            row = session.scalars(select(WorkerRow).where(WorkerRow.device == "cuda")).first()
        return row is not None and row.state == PAUSED and "not compiled with CUDA" in str(row.reason)

    try:
        until(is_paused, what="the pause of the device")
    finally:
        stopping.set()
        thread.join()


@without_cuda
@pytest.mark.parametrize(
    "command",
    [
        ["service.cli.main", "serve", "--port", "0"],
        ["workers.supervisor"],
        ["celery", "-A", "workers.celery_app", "worker", "--concurrency", "1"],
    ],
)
def test_a_worker_of_an_accelerator_torch_was_not_built_for_is_refused_in_one_line(
    tmp_path: Path, command: list[str]
) -> None:
    data = tmp_path / "data"
    environment = {**os.environ, "MIXWRIGHT_DEVICE": "cuda:0", "MIXWRIGHT_DATA_DIRECTORY": str(data)}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert "cuda:0" in line
    assert "built for CPUs" in line
    assert "--device" in line
    assert "ready" not in ended.stdout
    assert not data.exists(), "refused before anything was made"


@pytest.mark.parametrize(
    "command",
    [["workers.supervisor"], ["workers.dispatcher"], ["celery", "-A", "workers.celery_app", "worker"]],
)
def test_a_worker_started_with_a_device_that_is_none_says_so_in_one_line(command: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "MIXWRIGHT_DEVICE": "gpu"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("MIXWRIGHT_DEVICE: 'gpu' is no device to train on")
