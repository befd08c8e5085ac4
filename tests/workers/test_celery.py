"""Hints over a real Redis to a real Celery worker; the job is done whether or not a hint gets lost."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import DomainRow, Job
from tests.workers.conftest import new_revision
from workers.dispatcher import send_hints

Until = Callable[..., None]


@pytest.fixture
def settings(tmp_path: Path, redis_url: str) -> Settings:
    return Settings(data_directory=tmp_path, data_roots=str(tmp_path), broker_url=redis_url)


@pytest.fixture
def store(settings: Settings, tmp_path: Path) -> Iterator[Database]:
    """A revision of one domain whose tokenizer is to be trained."""
    database = Database(settings.resolved_database_url)
    upgrade(settings.resolved_database_url)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"paragraph {index} says {index * index}" for index in range(4000)))
    with database.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="words", files=[str(text)]))
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
    yield database
    database.close()


@pytest.fixture
def start_worker(settings: Settings, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Start a worker and a dispatcher, as on machines of their own."""
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "celery.log"

    def start() -> None:
        worker = ["-m", "celery", "-A", "workers.celery_app", "worker", "--concurrency", "1"]
        environment = {**os.environ, **settings.environment()}
        for arguments in (worker, ["-m", "workers.dispatcher"]):
            with log.open("ab") as output:
                command = [sys.executable, *arguments]
                started.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)


def states(database: Database) -> dict[str, str]:
    with database.read() as session:
        return {job.kind: job.state for job in session.query(Job)}


def test_a_worker_does_what_the_hints_name_and_what_follows(
    store: Database, start_worker: Callable[[], None], until: Until
) -> None:
    start_worker()
    kinds = (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN, jobs.COMPARE_DOMAINS)
    done = dict.fromkeys(kinds, jobs.SUCCEEDED)
    until(lambda: states(store) == done, what="the jobs")


def test_hints_lost_with_the_broker_are_sent_again(
    store: Database, settings: Settings, start_worker: Callable[[], None], until: Until
) -> None:
    sent: list[Job] = []
    assert send_hints(store, sent.append) == 1
    assert send_hints(store, sent.append) == 0, "a hint just sent is not sent again at once"
    redis.Redis.from_url(settings.broker_url).flushdb()
    assert send_hints(store, sent.append, resend_seconds=0.0) == 1
    assert sent[0].id == sent[1].id
    with store.read() as session:
        assert session.get(Job, sent[0].id) is not None, "a hint is a job's id and nothing else"
