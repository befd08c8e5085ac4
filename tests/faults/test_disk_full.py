"""The disk fills up while checkpoints are written: the run is tried again, and what is on disk is whole."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from proxy_models.training.run_record import checkpoint_steps, read_checkpoint
from store import jobs
from store.engine import Database
from store.settings import Settings
from tests.faults.small_disk import NoSmallDisk, fill, small_disk
from tests.faults.test_graceful_stop import child, rows, stop_when  # noqa: F401
from tests.servers import skip_loudly
from tests.workers.conftest import sqlite, until  # noqa: F401
from tests.workers.test_waves import add_swarm, prepared, revision_id  # noqa: F401
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.execution.waves import next_work
from workers.jobs import external_run

SIZE_BYTES = 16 * 2**20


@pytest.fixture
def runs_disk(tmp_path: Path) -> Iterator[Path]:
    """Where the runs are kept: a disk of its own that holds a few checkpoints."""
    try:
        with small_disk(tmp_path / "artifacts" / "runs", SIZE_BYTES) as disk:
            yield disk
    except NoSmallDisk as error:
        skip_loudly(f"{error}: what becomes of a run when the disk is full")


def test_a_run_whose_disk_is_full_is_tried_again_and_goes_on_when_there_is_room(
    runs_disk: Path,
    sqlite: Database,  # noqa: F811
    child: Child,  # noqa: F811
    revision_id: str,  # noqa: F811
    until: Callable[..., None],  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = Settings(
        data_directory=tmp_path, slots=1, heartbeat_seconds=0.05, stop_seconds=120.0, backend="one-by-one"
    )
    worker = Worker(sqlite, settings, threading.Event())
    (run_id,) = add_swarm(sqlite, revision_id, [{"mail": 0.5, "web": 0.5}], tokens=96_000)
    folder = runs_disk / run_id / "checkpoints"

    def trains() -> bool:
        return all(job.progress for job in rows(sqlite))

    def room() -> None:
        with sqlite.write() as session:  # its turn comes again at once
            session.execute(text("UPDATE jobs SET available_at = 0"))

    stop_when(worker, child, until, trains)
    (step,) = checkpoint_steps(folder)
    filler = fill(runs_disk)
    stop_when(worker, child, until, trains)  # it trains on, and its checkpoint finds no room
    (job,) = rows(sqlite)
    assert (job.state, job.failure_code) == (jobs.QUEUED, "storage_failed")
    assert "No space left" in str(job.failure_detail)
    assert checkpoint_steps(folder) == {step}, (
        "the checkpoint that was there is gone, or half a one has its name"
    )
    assert read_checkpoint(folder, step).step == step
    assert not list(folder.glob(".*")), "what could not be written is still in the way"
    filler.unlink()
    room()
    assert isinstance(worker.stopping, threading.Event)
    worker.stopping.clear()
    work = next_work(worker, "tester", child)
    assert work is not None
    run_claims(worker, work.claims, child)
    (job,) = rows(sqlite)
    assert (job.state, job.attempt) == (jobs.SUCCEEDED, 2)
    written = json.loads((runs_disk / run_id / "result.json").read_text())
    with sqlite.read() as session:
        stored = session.scalar(text("SELECT result FROM runs"))
    assert json.loads(str(stored))["final"] == written["result"]["final"]


def test_a_program_goes_on_when_its_log_meets_a_full_disk(runs_disk: Path) -> None:
    program = """
import os
with open("filler", "wb", buffering=0) as filler:
    for size in (2**16, 1):
        try:
            while True:
                filler.write(bytes(size))
        except OSError:
            pass
print("x" * 2**20, flush=True)  # more than a pipe holds
os.remove("filler")
print("there is room again", flush=True)
"""
    order = {
        "arguments": [sys.executable, "-c", program],
        "environment": [],
        "directory": str(runs_disk),
        "stop_seconds": 1.0,
        "mixture": {"weights": {"books": 1.0}},
        "exports": {},
        "results": {"names": ["one"], "tasks": [], "tokens_per_step": 1, "results": [], "metrics": {}},
    }
    assert external_run.execute(order, lambda _: None)["exit_status"] == 0
    assert (runs_disk / "log").read_text().endswith("there is room again\n")
