"""What may go wrong around a job, and what must not come of it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Base, DomainRow, Job
from tests.workers.conftest import new_revision
from workers.claims.claim import claim
from workers.dispatcher import send_hints
from workers.execution.child import _finite
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.jobs import kind_named

Until = Callable[..., None]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_directory=tmp_path, data_roots=str(tmp_path), slots=1, heartbeat_seconds=0.05, poll_seconds=0.05
    )


@pytest.fixture
def endless_job(sqlite: Database, tmp_path: Path) -> str:
    """A job that reads a pipe nobody writes to: under way until something ends it. Answers its id."""
    os.mkfifo(tmp_path / "text.txt")
    return add_tokenizer_job(sqlite, tmp_path / "text.txt")


def add_tokenizer_job(database: Database, text: Path) -> str:
    with database.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="words", files=[str(text)]))
        job = jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)
        session.add(job)
        session.flush()
        return job.id


def add_short_job(database: Database, settings: Settings) -> str:
    """A tokenizer over a few seconds' worth of text. Answers the job's id."""
    text = settings.data_directory / "words.txt"
    text.write_text("\n\n".join(f"paragraph {index} says {index * index}" for index in range(4000)))
    return add_tokenizer_job(database, text)


def job_with(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


@pytest.fixture
def supervisor(settings: Settings, sqlite: Database) -> Iterator[subprocess.Popen[bytes]]:
    """Over a database that is there: it refuses one without tables."""
    assert sqlite
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.supervisor"],
        env={**os.environ, **settings.environment()},
        stdin=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def training(
    supervisor: subprocess.Popen[bytes], sqlite: Database, endless_job: str, until: Until
) -> psutil.Process:
    """The supervisor's child, once it is at work on the endless job."""

    def child() -> list[psutil.Process]:
        running = job_with(sqlite, endless_job).state == jobs.RUNNING
        return psutil.Process(supervisor.pid).children() if running else []

    until(child, what="a child at work")
    return child()[0]


def test_a_supervisor_asked_to_stop_gives_its_jobs_back(
    supervisor: subprocess.Popen[bytes], training: psutil.Process, sqlite: Database, endless_job: str
) -> None:
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=30) == 0
    assert not training.is_running()
    job = job_with(sqlite, endless_job)
    assert (job.state, job.attempt, job.lease_token) == (jobs.QUEUED, 0, None)


def test_a_supervisor_ends_with_the_process_that_started_it(
    supervisor: subprocess.Popen[bytes], training: psutil.Process, sqlite: Database, endless_job: str
) -> None:
    assert supervisor.stdin is not None
    supervisor.stdin.close()  # what the kernel does when the parent dies
    assert supervisor.wait(timeout=30) == 0
    assert job_with(sqlite, endless_job).state == jobs.QUEUED


def test_a_killed_supervisor_takes_a_child_in_the_middle_of_its_job_along(
    supervisor: subprocess.Popen[bytes], training: psutil.Process, sqlite: Database, endless_job: str
) -> None:
    supervisor.kill()
    _, alive = psutil.wait_procs([training], timeout=30)
    assert not alive
    assert job_with(sqlite, endless_job).state == jobs.RUNNING, (
        "nobody could give the job back: it is the reaper's"
    )


def test_a_supervisor_without_a_pipe_lives_on_its_own(
    settings: Settings, sqlite: Database, until: Until
) -> None:
    job_id = add_short_job(sqlite, settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.supervisor"],
        env={**os.environ, **settings.environment()},
        stdin=subprocess.DEVNULL,
    )
    try:
        until(lambda: job_with(sqlite, job_id).state == jobs.SUCCEEDED, what="the job")
    finally:
        process.terminate()
    assert process.wait(timeout=30) == 0


def test_a_result_that_cannot_be_stored_fails_its_job_and_not_the_worker(
    settings: Settings, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_short_job(sqlite, settings)

    def broken(session: Session, job: Job, result: dict[str, Any]) -> None:
        raise KeyError("vocabulary_size")

    monkeypatch.setattr(kind_named(jobs.PREPARE_TOKENIZER), "store", broken)
    claimed = claim(sqlite, "tester", 30.0)
    assert claimed is not None
    child = Child()
    run_claims(Worker(sqlite, settings, threading.Event()), [claimed], child)
    child.kill()
    job = job_with(sqlite, job_id)
    assert (job.state, job.failure_code, job.failure_detail) == (
        jobs.FAILED,
        "internal_error",
        "KeyError: 'vocabulary_size'",
    )
    with sqlite.read() as session:
        assert session.scalars(select(Job.kind)).all() == [jobs.PREPARE_TOKENIZER]


@pytest.mark.parametrize("step", ["describe", "store"])
def test_a_connection_that_dies_in_a_step_of_a_job_is_not_the_jobs_fault(
    settings: Settings, postgres_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    database = Database(postgres_url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    job_id = add_short_job(database, settings)
    real: Callable[..., Any] = getattr(kind_named(jobs.PREPARE_TOKENIZER), step)
    cuts: list[int] = []

    def cut_once(session: Session, *arguments: Any) -> Any:
        if not cuts:
            cuts.append(session.scalars(select(func.pg_backend_pid())).one())
            with database.read() as another:
                another.execute(select(func.pg_terminate_backend(cuts[0], 30_000)))
        return real(session, *arguments)

    monkeypatch.setattr(kind_named(jobs.PREPARE_TOKENIZER), step, cut_once)
    claimed = claim(database, "tester", 60.0)
    assert claimed is not None
    child = Child()
    run_claims(Worker(database, settings, threading.Event()), [claimed], child)
    child.kill()
    job = job_with(database, job_id)
    database.close()
    assert len(cuts) == 1
    assert (job.state, job.attempt, job.failure_code) == (jobs.SUCCEEDED, 1, None)


def test_a_pool_whose_connections_are_all_taken_is_waited_for(
    settings: Settings, sqlite: Database, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """A store that stalls keeps every connection of a supervisor busy; its other slots find none."""
    job_id = add_short_job(sqlite, settings)
    claimed = claim(sqlite, "tester", 60.0)
    assert claimed is not None
    database = Database(str(sqlite.engine.url), connections=1)
    monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
    waited: list[float] = []

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            return super().wait(0.05)

    child = Child()
    work = threading.Thread(target=run_claims, args=(Worker(database, settings, Waiting()), [claimed], child))
    with database.engine.connect():
        work.start()
        until(lambda: len(waited) > 1 or not work.is_alive(), what="a worker that waits for a connection")
    work.join()
    child.kill()
    database.close()
    job = job_with(sqlite, job_id)
    assert (job.state, job.attempt, job.failure_code) == (jobs.SUCCEEDED, 1, None)


def test_what_is_no_number_becomes_null() -> None:
    message = {"result": {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": ("x", 2, None, True)}}}
    assert _finite(message) == {"result": {"a": None, "b": [1.5, None], "c": {"d": ["x", 2, None, True]}}}


def test_hints_do_not_pile_up_at_a_broker_whose_workers_are_busy(database: Database) -> None:
    with database.write() as session:
        session.add_all(jobs.new_job(jobs.PROXY_RUN, f"run_{i}", "opt", i) for i in range(10))
    sent: list[str] = []
    assert send_hints(database, sent.append, limit=4) == 4
    assert send_hints(database, sent.append, limit=0) == 0
    assert send_hints(database, sent.append, limit=-3) == 0
    assert send_hints(database, sent.append, limit=4) == 4
    assert send_hints(database, sent.append) == 2
    assert len(set(sent)) == 10
