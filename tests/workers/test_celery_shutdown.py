"""A Celery worker asked to stop gives its job back instead of finishing it or letting its lease run out."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.database import jobs
from service.database.engine import Database
from service.database.models import DomainRow, Job
from service.settings import Settings
from tests.workers.conftest import new_revision

Until = Callable[..., None]


@pytest.fixture(params=["prefork", "solo"])
def celery_worker(
    request: pytest.FixtureRequest, tmp_path: Path, redis_url: str, sqlite: Database
) -> Iterator[subprocess.Popen[bytes]]:
    settings = Settings(
        data_directory=tmp_path, data_roots=str(tmp_path), broker_url=redis_url, heartbeat_seconds=0.05
    )
    command = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--pool", request.param]
    command += ["--concurrency", "1"]
    with (tmp_path / "celery.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **settings.environment()}, stdout=log, stderr=log
        )
    yield process
    process.kill()
    process.wait()


def test_a_warm_shutdown_gives_the_job_and_its_attempt_back(
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


def send_hint(broker_url: str, job_id: str) -> None:
    """Send it as any client would that knows the task's name."""
    from celery import Celery

    client = Celery("client", broker=broker_url)
    client.conf.task_default_queue = "mixwright.rest"
    with client.connection_for_write() as connection:
        client.send_task("mixwright.run_job", (job_id,), connection=connection)
    client.close()
