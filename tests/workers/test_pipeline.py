"""From stage to stage, on both databases, with jobs ended by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database import jobs
from service.database.engine import Database
from service.database.models import DomainRow, Job, Optimization, Run, Swarm
from tests.workers.conftest import new_revision
from workers.claims import claim, fail, finish
from workers.failures import Failure
from workers.pipeline import advance, settle, tick

DOMAINS = ("books", "code", "web")
NEEDED = len(DOMAINS) + 2  # the log-linear law has m + 1 parameters, and one run is left to judge it by


@dataclass(frozen=True)
class Stored:
    """An optimization over three domains whose tokenizer and domains wait to be prepared."""

    revision_id: str
    optimization_id: str


@pytest.fixture
def stored(database: Database) -> Stored:
    with database.write() as session:
        revision = new_revision(session)
        rows = [DomainRow(revision_id=revision.id, name=name, files=["/x"]) for name in DOMAINS]
        session.add_all(rows)
        session.flush()
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
        session.add_all(jobs.new_job(jobs.PREPARE_DOMAIN, row.id, revision.id) for row in rows)
        optimization = Optimization(
            revision_id=revision.id, method="olmix", seed=0, settings={"runs": NEEDED + 1}
        )
        session.add(optimization)
        session.flush()
        return Stored(revision.id, optimization.id)


def succeed(database: Database, kind: str, store: Callable[[Session, Job], None] = settle) -> str:
    """Claim and finish the next job of a kind; answers its subject."""
    claimed = claim(database, "tester", 30.0, kinds=[kind])
    assert claimed is not None, f"no {kind} is queued"
    finish(database, claimed, store)
    return claimed.subject


def lose(database: Database, kind: str) -> str:
    """Claim the next job of a kind and fail it for good."""
    claimed = claim(database, "tester", 30.0, kinds=[kind])
    assert claimed is not None, f"no {kind} is queued"
    fail(database, claimed, Failure("diverged", "at step 3", retryable=False), settle)
    return claimed.subject


def prepare(database: Database) -> None:
    for kind in (jobs.PREPARE_TOKENIZER, *[jobs.PREPARE_DOMAIN] * len(DOMAINS)):
        succeed(database, kind)


def sample(database: Database, stored: Stored, runs: int) -> None:
    def store(session: Session, job: Job) -> None:
        swarm = Swarm(optimization_id=stored.optimization_id, revision_id=stored.revision_id)
        session.add(swarm)
        session.flush()
        for position in range(runs):
            run = Run(swarm_id=swarm.id, position=position, seed=0, weights={})
            session.add(run)
            session.flush()
            session.add(jobs.new_job(jobs.PROXY_RUN, run.id, stored.optimization_id, position))
        settle(session, job)

    succeed(database, jobs.SAMPLE_SWARM, store)


def queued(database: Database) -> dict[str, int]:
    with database.read() as session:
        kinds = session.scalars(select(Job.kind).where(Job.state == jobs.QUEUED)).all()
    return {kind: kinds.count(kind) for kind in set(kinds)}


def optimization(database: Database, stored: Stored) -> Optimization:
    with database.read() as session:
        return session.get_one(Optimization, stored.optimization_id)


def test_the_stages_follow_one_another(database: Database, stored: Stored) -> None:
    tick(database)
    assert jobs.SAMPLE_SWARM not in queued(database), "sampled before the domains are counted"
    prepare(database)
    assert queued(database) == {jobs.SAMPLE_SWARM: 1}
    sample(database, stored, NEEDED + 1)
    assert queued(database) == {jobs.PROXY_RUN: NEEDED + 1}
    for _ in range(NEEDED):
        succeed(database, jobs.PROXY_RUN)
    tick(database)
    assert queued(database) == {jobs.PROXY_RUN: 1}, "solved before the last run has ended"
    succeed(database, jobs.PROXY_RUN)
    assert queued(database) == {jobs.SOLVE: 1}
    assert optimization(database, stored).state == jobs.RUNNING
    succeed(database, jobs.SOLVE)
    assert optimization(database, stored).state == jobs.SUCCEEDED


def test_advancing_again_and_again_changes_nothing(database: Database, stored: Stored) -> None:
    prepare(database)
    for _ in range(3):
        tick(database)
        with database.write() as session:
            advance(session, stored.optimization_id)
    assert queued(database) == {jobs.SAMPLE_SWARM: 1}


def test_a_missed_call_heals_at_the_next_tick(database: Database, stored: Stored) -> None:
    for kind in (jobs.PREPARE_TOKENIZER, *[jobs.PREPARE_DOMAIN] * len(DOMAINS)):
        succeed(database, kind, lambda session, job: None)
    assert queued(database) == {}
    tick(database)
    assert queued(database) == {jobs.SAMPLE_SWARM: 1}


def test_a_lost_run_does_not_stop_the_others(database: Database, stored: Stored) -> None:
    prepare(database)
    sample(database, stored, NEEDED + 1)
    lose(database, jobs.PROXY_RUN)
    for _ in range(NEEDED):
        succeed(database, jobs.PROXY_RUN)
    assert queued(database) == {jobs.SOLVE: 1}


def test_too_few_runs_left_fail_the_optimization_with_the_reason(database: Database, stored: Stored) -> None:
    prepare(database)
    sample(database, stored, NEEDED + 1)
    for _ in range(2):
        lose(database, jobs.PROXY_RUN)
    for _ in range(NEEDED - 1):
        succeed(database, jobs.PROXY_RUN)
    ended = optimization(database, stored)
    assert (ended.state, ended.failure_code) == (jobs.FAILED, "too_few_runs")
    assert ended.failure_detail is not None
    assert f"{NEEDED - 1} of {NEEDED + 1} runs succeeded" in ended.failure_detail
    assert "diverged: at step 3" in ended.failure_detail
    assert queued(database) == {}


def test_a_failed_domain_fails_the_optimization_and_is_named(database: Database, stored: Stored) -> None:
    succeed(database, jobs.PREPARE_TOKENIZER)
    with database.read() as session:
        names = {row.id: row.name for row in session.scalars(select(DomainRow))}
    failed = names[lose(database, jobs.PREPARE_DOMAIN)]
    ended = optimization(database, stored)
    assert (ended.state, ended.failure_code) == (jobs.FAILED, "diverged")
    assert ended.failure_detail == f"Domain {failed!r}: at step 3"


def test_a_cancelled_optimization_goes_nowhere(database: Database, stored: Stored) -> None:
    prepare(database)
    with database.write() as session:
        jobs.cancel_jobs(session, stored.optimization_id)
        session.get_one(Optimization, stored.optimization_id).state = jobs.CANCELLED
    tick(database)
    assert queued(database) == {}
    assert optimization(database, stored).state == jobs.CANCELLED
