"""A worker asked to stop writes a checkpoint and hands its runs back; another goes on at that very step."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text

from benchmarks.own_redis import OwnRedis
from benchmarks.storm_cluster import team
from proxy_models.training.run_record import checkpoint_steps, read_checkpoint
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Attempt, Job
from tests.faults.conftest import Swarm
from tests.workers.conftest import sqlite, until  # noqa: F401
from tests.workers.test_waves import add_swarm, prepared, revision_id  # noqa: F401
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.execution.waves import ClaimedJobs, next_work

ENDLESS = 2_000_000_000
RUNS = 5
"""As few as an optimization over the storm's domains may have; one wave."""
WEIGHTS = [{"mail": 0.3, "web": 0.7}, {"mail": 0.6, "web": 0.4}]


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.kill()


@pytest.fixture
def worker(request: pytest.FixtureRequest, sqlite: Database, tmp_path: Path) -> Worker:  # noqa: F811
    # Nobody else finds a machine with other things to do too slow to write a checkpoint.
    settings = Settings(
        data_directory=tmp_path, slots=1, heartbeat_seconds=0.05, backend=request.param, stop_seconds=120.0
    )
    return Worker(sqlite, settings, threading.Event())


def runs_of(worker: Worker) -> list[dict[str, float]]:
    """Trained by itself, or two in one wave."""
    return WEIGHTS[:1] if worker.settings.backend == "one-by-one" else WEIGHTS


def backend_of(work: ClaimedJobs) -> str | None:
    """None is the trainer of a single run, as it is without a swarm."""
    return work.backend if len(work.claims) > 1 else None


def rows(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).where(Job.kind == jobs.PROXY_RUN).order_by(Job.position)))


def stop_when(
    worker: Worker,
    child: Child,
    until: Callable[..., None],  # noqa: F811
    condition: Callable[[], object],
) -> None:
    """Have the worker do what waits, and ask it to stop once ``condition`` holds."""
    assert isinstance(worker.stopping, threading.Event)
    worker.stopping.clear()
    work = next_work(worker, "tester", child)
    assert work is not None
    thread = threading.Thread(target=run_claims, args=(worker, work.claims, child, backend_of(work)))
    thread.start()
    try:
        until(condition, 120.0, "training under way")
    finally:
        worker.stopping.set()
        thread.join()


@pytest.mark.parametrize(
    "worker", ["stacked", pytest.param("one-by-one", marks=pytest.mark.long)], indirect=True
)
def test_training_stops_with_a_checkpoint_and_goes_on_at_its_step(
    worker: Worker,
    child: Child,
    revision_id: str,  # noqa: F811
    until: Callable[..., None],  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_ids = add_swarm(worker.database, revision_id, runs_of(worker), tokens=ENDLESS)
    stop_when(worker, child, until, lambda: all(job.progress for job in rows(worker.database)))
    assert {(job.state, job.attempt, job.lease_token) for job in rows(worker.database)} == {
        (jobs.QUEUED, 0, None)
    }
    folders = [worker.settings.artifacts / "runs" / run_id / "checkpoints" for run_id in run_ids]
    (steps,) = {tuple(checkpoint_steps(folder)) for folder in folders}
    (step,) = steps
    assert step > 0
    assert child.pid is not None, "a child that stopped as asked was killed"
    # Another process, stopped before it has trained a step, says where it stood.
    child.kill()
    caplog.clear()
    with caplog.at_level(logging.INFO, "mixwright.worker"):
        stop_when(worker, child, until, lambda: True)
    said = [record.getMessage() for record in caplog.records if "given back" in record.getMessage()]
    assert len(said) == len(run_ids)
    assert all(f"stopped after step {step} " in f"{line} " for line in said), said
    with worker.database.read() as session:
        assert set(session.scalars(select(Attempt.outcome))) == {"released"}


@pytest.mark.parametrize(
    "worker", ["one-by-one", pytest.param("stacked", marks=pytest.mark.long)], indirect=True
)
def test_a_run_stopped_half_way_measures_what_it_would_have(
    worker: Worker,
    child: Child,
    revision_id: str,  # noqa: F811
    until: Callable[..., None],  # noqa: F811
    tmp_path: Path,
) -> None:
    add_swarm(worker.database, revision_id, runs_of(worker), tokens=96_000)
    stop_when(worker, child, until, lambda: all(job.progress for job in rows(worker.database)))
    assert isinstance(worker.stopping, threading.Event)
    worker.stopping.clear()

    def finals(worker: Worker) -> list[dict[str, float]]:
        work = next_work(worker, "tester", child, [jobs.PROXY_RUN])
        assert work is not None
        run_claims(worker, work.claims, child, backend_of(work))
        folders = [worker.settings.artifacts / "runs" / job.subject for job in rows(worker.database)]
        return [json.loads((folder / "result.json").read_text())["result"]["final"] for folder in folders]

    stopped = finals(worker)
    with worker.database.write() as session:  # the same runs once more, from the start and in one go
        session.execute(text("DELETE FROM metrics"))
        jobs.requeue_jobs(session, rows(worker.database)[0].owner, [jobs.SUCCEEDED])
    elsewhere = worker.settings.model_copy(update={"data_directory": tmp_path / "elsewhere"})
    assert finals(replace(worker, settings=elsewhere)) == stopped


def test_a_celery_worker_asked_to_stop_hands_over_to_the_next(
    service_settings: Callable[..., Settings],
    running: Callable[..., Swarm],
    own_database: str,
    own_redis: OwnRedis,
) -> None:
    settings = service_settings(own_database, own_redis.url, stop_seconds=60.0, slots=1, wave_members=RUNS)
    swarm = running(team(settings, 1))
    swarm.ask(RUNS, tokens=ENDLESS)
    reported = "progress ->> 'done' IS NOT NULL"
    done = "SELECT min(CAST(progress ->> 'done' AS BIGINT)) FROM jobs WHERE kind = 'proxy_run'"

    def trained() -> int:
        with swarm.database.read() as session:
            return int(session.scalar(text(done)) or 0)

    swarm.wait_for(lambda: swarm.count(reported) == RUNS and trained(), "all runs under way")
    (first,) = swarm.cluster.workers()
    first.terminate()
    swarm.wait_for(lambda: not first.is_running(), "the end of the worker")
    folders = [settings.artifacts / "runs" / job.subject / "checkpoints" for job in rows(swarm.database)]
    handed_over = min(max(checkpoint_steps(folder)) for folder in folders)
    assert handed_over > 0
    swarm.wait_for(lambda: swarm.count(f"state = 'running' AND {reported}") == RUNS, "the next worker")
    per_step = 8 * 64
    assert trained() >= handed_over * per_step
    assert swarm.count("attempt = 1 AND max_attempts = 3") == RUNS, "stopping has cost an attempt"
    swarm.client.cancel_optimization(swarm.optimization)
    assert read_checkpoint(folders[0], max(checkpoint_steps(folders[0]))).step >= handed_over
