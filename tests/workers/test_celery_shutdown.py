"""A Celery worker asked to stop gives its job back instead of finishing it or letting its lease run out."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import DomainRow, Job, WorkerRow
from tests.workers.conftest import new_revision

Until = Callable[..., None]


@pytest.fixture(params=["prefork", "solo"])
def celery_worker(
    request: pytest.FixtureRequest, tmp_path: Path, redis_url: str, sqlite: Database
) -> Iterator[subprocess.Popen[bytes]]:
    with running(tmp_path, redis_url, request.param) as process:
        yield process


@contextmanager
def running(tmp_path: Path, redis_url: str, pool: str) -> Iterator[subprocess.Popen[bytes]]:
    settings = Settings(
        data_directory=tmp_path, data_roots=str(tmp_path), broker_url=redis_url, heartbeat_seconds=0.05
    )
    command = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--pool", pool]
    command += ["--concurrency", "1"]
    with (tmp_path / "celery.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **settings.environment()}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_warm_shutdown_gives_the_job_and_its_attempt_back(
    celery_worker: subprocess.Popen[bytes], sqlite: Database, tmp_path: Path, redis_url: str, until: Until
) -> None:
    check_shutdown(celery_worker, sqlite, tmp_path, redis_url, until)


@pytest.mark.parametrize("celery_worker", ["prefork"], indirect=True)
def test_it_does_so_after_a_process_of_its_pool_was_killed(
    celery_worker: subprocess.Popen[bytes], sqlite: Database, tmp_path: Path, redis_url: str, until: Until
) -> None:
    def pool() -> int | None:
        """The pool's process, once it has registered: from then on it waits to hear of the shutdown."""
        with sqlite.read() as session:
            registered = session.scalars(select(WorkerRow.process)).first()
        alive = [child.pid for child in psutil.Process(celery_worker.pid).children()]
        return registered if registered in alive else None

    send_hint(redis_url, "job_of_nobody")  # Celery gives up where the first process dies before it was of use
    log = tmp_path / "celery.log"
    until(lambda: pool() and "succeeded" in log.read_text(), what="a process of the pool that was of use")
    killed = pool()
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    until(lambda: pool() not in (None, killed), what="another process of the pool")
    check_shutdown(celery_worker, sqlite, tmp_path, redis_url, until)


def check_shutdown(
    celery_worker: subprocess.Popen[bytes], sqlite: Database, tmp_path: Path, redis_url: str, until: Until
) -> None:
    os.mkfifo(tmp_path / "text.txt")  # nobody writes to it: the job is under way until something ends it
    with sqlite.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="words", files=[str(tmp_path / "text.txt")]))
        job = jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)
        session.add(job)
        session.flush()
        job_id = job.id
    send_hint(redis_url, job_id)

    def stored() -> Job:
        with sqlite.read() as session:
            return session.get_one(Job, job_id)

    until(lambda: stored().state == jobs.RUNNING, what="the job under way")
    celery_worker.terminate()
    assert celery_worker.wait(timeout=60) == 0
    assert (stored().state, stored().attempt) == (jobs.QUEUED, 0)


def test_a_worker_that_is_there_before_the_schema_is_registered_once_it_comes(
    tmp_path: Path, redis_url: str, until: Until
) -> None:
    url = f"sqlite:///{tmp_path / 'mixwright.db'}"
    with running(tmp_path, redis_url, "prefork"):
        said = tmp_path / "celery.log"
        until(lambda: "run 'mixwright migrate' first" in said.read_text(), what="its complaint")
        upgrade(url)
        database = Database(url)
        until(lambda: count_workers(database) == 1, what="a registered worker")
        database.close()


def count_workers(database: Database) -> int:
    with database.read() as session:
        return len(session.scalars(select(WorkerRow)).all())


def send_hint(broker_url: str, job_id: str) -> None:
    """Send it as any client would that knows the task's name."""
    from celery import Celery

    client = Celery("client", broker=broker_url)
    client.conf.task_default_queue = "mixwright.rest"
    with client.connection_for_write() as connection:
        client.send_task("mixwright.run_job", (job_id,), connection=connection)
    client.close()
