"""A cancellation and a retry that cross what the workers are doing."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from store import jobs
from store.engine import Database
from store.tables import DomainRow, Job, Optimization, Run, Swarm
from tests.workers.conftest import new_revision
from workers.claims.claim import Claim, acknowledge_cancel, claim, finish
from workers.pipeline import settle


@pytest.fixture
def optimization_id(database: Database) -> str:
    """An optimization over two prepared domains, whose swarm waits to be sampled."""
    with database.write() as session:
        revision = new_revision(session)
        rows = [DomainRow(revision_id=revision.id, name=name, files=["/x"]) for name in ("books", "web")]
        session.add_all(rows)
        session.flush()
        prepared = [jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id)]
        prepared += [jobs.new_job(jobs.PREPARE_DOMAIN, row.id, revision.id) for row in rows]
        for job in prepared:
            job.state = jobs.SUCCEEDED
        optimization = Optimization(
            revision_id=revision.id,
            method="olmix",
            seed=0,
            settings={
                "runs": 5,
                "rounds": [5],
                "minimum_runs": 5,
                "recipe": {"sampler": "two-level-dirichlet"},
            },
            state=jobs.RUNNING,
        )
        session.add_all([*prepared, optimization])
        session.flush()
        session.add(jobs.new_job(jobs.SAMPLE_SWARM, optimization.id, optimization.id))
        return optimization.id


def take(database: Database) -> Claim:
    claimed = claim(database, "tester", 30.0)
    assert claimed is not None
    return claimed


def store_swarm(session: Session, job: Job) -> None:
    revision_id = session.get_one(Optimization, job.owner).revision_id
    swarm = Swarm(optimization_id=job.owner, revision_id=revision_id)
    session.add(swarm)
    session.flush()
    for position in range(5):
        run = Run(swarm_id=swarm.id, position=position, seed=0, weights={})
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.PROXY_RUN, run.id, job.owner, position))
    session.flush()
    settle(session, job)


def cancel(database: Database, optimization_id: str) -> None:
    with database.write() as session:
        jobs.cancel_jobs(session, optimization_id)
        session.get_one(Optimization, optimization_id).state = jobs.CANCELLED


def retry(database: Database, optimization_id: str) -> None:
    with database.write() as session:
        jobs.requeue_jobs(session, optimization_id)
        session.get_one(Optimization, optimization_id).state = jobs.QUEUED


def states(database: Database, kind: str) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Job.state).where(Job.kind == kind).order_by(Job.position)))


def test_a_swarm_sampled_while_it_was_cancelled_is_not_trained(
    database: Database, optimization_id: str
) -> None:
    sampling = take(database)
    cancel(database, optimization_id)
    finish(database, sampling, store_swarm)
    assert states(database, jobs.PROXY_RUN) == [jobs.CANCELLED] * 5
    assert claim(database, "tester", 30.0) is None
    retry(database, optimization_id)
    assert states(database, jobs.PROXY_RUN) == [jobs.QUEUED] * 5
    assert states(database, jobs.SAMPLE_SWARM) == [jobs.SUCCEEDED]


def test_a_run_still_held_when_the_optimization_is_retried_is_not_lost(
    database: Database, optimization_id: str
) -> None:
    finish(database, take(database), store_swarm)
    held = take(database)
    cancel(database, optimization_id)
    retry(database, optimization_id)
    acknowledge_cancel(database, held, settle)
    assert states(database, jobs.PROXY_RUN) == [jobs.QUEUED] * 5
    for _ in range(5):
        finish(database, take(database), settle)
    assert states(database, jobs.SOLVE) == [jobs.QUEUED]
