"""A job in a real child process: finished, killed, cancelled, taken away, given back."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job, Revision
from tests.workers.conftest import new_revision
from workers.claims.claim import Claim, claim
from workers.execution.child_handle import Child, ChildDied
from workers.execution.execute import Worker, run_claims

Until = Callable[..., None]


@pytest.fixture
def worker(sqlite: Database, tmp_path: Path) -> Worker:
    settings = Settings(data_directory=tmp_path, data_roots=str(tmp_path), heartbeat_seconds=0.05)
    return Worker(sqlite, settings, threading.Event())


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.kill()


@pytest.fixture
def claimed(worker: Worker, tmp_path: Path) -> Claim:
    """The claim of a job that trains a tokenizer on a few seconds' worth of text."""
    text = tmp_path / "text.txt"
    words = [f"{left}{right}" for left in range(1000) for right in ("ing", "ed", "ation", "ly")]
    text.write_text("\n\n".join(" ".join(words[start:] + words[:start]) for start in range(0, 4000, 40)))
    with worker.database.write() as session:
        revision = new_revision(session)
        session.add(DomainRow(revision_id=revision.id, name="words", files=[str(text)]))
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
    taken = claim(worker.database, "tester", 30.0)
    assert taken is not None
    return taken


def job_of(worker: Worker, claimed: Claim) -> Job:
    with worker.database.read() as session:
        return session.get_one(Job, claimed.job_id)


def in_thread(worker: Worker, claimed: Claim, child: Child) -> threading.Thread:
    thread = threading.Thread(target=run_claims, args=(worker, [claimed], child))
    thread.start()
    return thread


def test_a_finished_job_stores_its_result_and_queues_what_waited(
    worker: Worker, claimed: Claim, child: Child
) -> None:
    run_claims(worker, [claimed], child)
    assert job_of(worker, claimed).state == jobs.SUCCEEDED
    with worker.database.read() as session:
        revision = session.get_one(Revision, claimed.subject)
        assert revision.vocabulary_size == 512
        assert revision.tokenizer_path is not None
        assert Path(revision.tokenizer_path).is_file()
    following = claim(worker.database, "tester", 30.0)
    assert following is not None
    assert following.kind == jobs.PREPARE_DOMAIN
    warm = child.pid
    run_claims(worker, [following], child)
    assert child.pid == warm, "the child was not kept warm"


def test_a_killed_child_is_a_lost_worker_and_is_retried(
    worker: Worker, claimed: Claim, child: Child, until: Until
) -> None:
    thread = in_thread(worker, claimed, child)
    until(lambda: child.pid is not None, what="a child")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    thread.join()
    job = job_of(worker, claimed)
    assert (job.state, job.attempt, job.failure_code) == (jobs.QUEUED, 1, "worker_lost")
    assert job.failure_detail is not None
    assert "SIGKILL" in job.failure_detail
    until(lambda: claim_again(worker), what="the second attempt")


def claim_again(worker: Worker) -> Claim | None:
    return claim(worker.database, "tester", 30.0)


def test_a_cancelled_job_ends_at_its_next_heartbeat(worker: Worker, claimed: Claim, child: Child) -> None:
    with worker.database.write() as session:
        jobs.cancel_jobs(session, claimed.owner)
    run_claims(worker, [claimed], child)
    assert job_of(worker, claimed).state == jobs.CANCELLED
    assert child.pid is None


def test_a_lease_taken_away_drops_the_work(worker: Worker, claimed: Claim, child: Child) -> None:
    with worker.database.write() as session:
        session.execute(update(Job).values(lease_token="somebody else's"))
    run_claims(worker, [claimed], child)
    job = job_of(worker, claimed)
    assert (job.state, job.lease_token) == (jobs.CLAIMED, "somebody else's")
    assert child.pid is None


def test_a_stopping_worker_gives_its_job_and_its_attempt_back(
    worker: Worker, claimed: Claim, child: Child
) -> None:
    worker.stopping.set()
    run_claims(worker, [claimed], child)
    job = job_of(worker, claimed)
    assert (job.state, job.attempt) == (jobs.QUEUED, 0)
    assert child.pid is None


@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [
        (lambda path: path.unlink(), "corpus_error", "text.txt"),
        (lambda path: path.write_bytes(b"\xff\xfe\xff not UTF-8"), "corpus_error", "text.txt"),
    ],
)
def test_missing_or_unreadable_data_fails_at_once_and_is_named(
    worker: Worker,
    claimed: Claim,
    child: Child,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    code: str,
    named: str,
) -> None:
    spoil(tmp_path / "text.txt")
    run_claims(worker, [claimed], child)
    job = job_of(worker, claimed)
    assert job.state == jobs.FAILED
    assert job.failure_detail is not None
    assert named in job.failure_detail
    assert job.failure_code in (code, "data_missing")


def test_a_child_that_was_stopped_is_replaced(
    worker: Worker, claimed: Claim, child: Child, until: Until
) -> None:
    patient = worker.settings.model_copy(update={"silence_seconds": 3.0})
    thread = in_thread(Worker(worker.database, patient, worker.stopping), claimed, child)
    until(lambda: child.pid is not None, what="a child")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGSTOP)
    thread.join()
    job = job_of(worker, claimed)
    assert (job.state, job.failure_code) == (jobs.QUEUED, "worker_lost")
    assert "said nothing for 3 s" in str(job.failure_detail)
    assert child.pid is None


def test_an_order_that_a_stopped_child_does_not_read_ends_it(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.order("nothing", [{}])
    while child.message(timeout=0.5) is None:
        pass
    assert child.pid is not None
    monkeypatch.setattr("workers.execution.child_handle.READ_SECONDS", 0.5)
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(ChildDied, match="SIGKILL"):
        child.order("nothing", [{"more than a pipe holds": "x" * 2**20}])
    assert child.pid is None


def test_a_child_ends_with_its_parent(until: Until) -> None:
    child = Child()
    child.order("nothing", [{}])  # a kind nobody knows still answers, and does not end the child
    message: dict[str, Any] | None = None
    while message is None:
        message = child.message(timeout=0.5)
    assert message["failure"]["code"] == "internal_error"
    process = child._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()  # what the kernel does when the parent dies
    assert process.wait(timeout=30) == 0
