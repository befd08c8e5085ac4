"""From stage to stage, on both databases, with jobs ended by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from store import jobs
from store.engine import Database
from store.tables import DomainRow, Job, Optimization, Run
from tests.workers.conftest import new_revision
from workers.claims.claim import claim, fail, finish
from workers.claims.failures import Failure
from workers.jobs import sample_swarm
from workers.pipeline import advance, settle, tick

DOMAINS = ("books", "code", "web")
NEEDED = len(DOMAINS) + 2  # the log-linear law has m + 1 parameters, and one run is left to judge it by


def settings_of(
    rounds: list[int], needed: int = NEEDED, sampler: str = "predicted-best"
) -> dict[str, object]:
    """What the pipeline reads of an optimization's settings; the sampler learns from every round."""
    recipe = {"sampler": sampler}
    return {"runs": sum(rounds), "rounds": rounds, "minimum_runs": needed, "recipe": recipe}


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
            revision_id=revision.id, method="olmix", seed=0, settings=settings_of([NEEDED + 1])
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
    """Sample the next round: ``runs`` runs."""

    def store(session: Session, job: Job) -> None:
        sample_swarm.store(session, job, {"runs": [{"weights": {}, "tokens": None}] * runs})
        settle(session, job)

    succeed(database, jobs.SAMPLE_SWARM, store)


def queued(database: Database) -> dict[str, int]:
    with database.read() as session:
        kinds = session.scalars(select(Job.kind).where(Job.state == jobs.QUEUED)).all()
    return {kind: kinds.count(kind) for kind in set(kinds)}


def optimization(database: Database, stored: Stored) -> Optimization:
    with database.read() as session:
        return session.get_one(Optimization, stored.optimization_id)


@contextmanager
def watched(database: Database) -> Iterator[tuple[list[str], list[Job]]]:
    """The statements that are sent, and the jobs that are loaded, meanwhile."""
    statements: list[str] = []
    loaded: list[Job] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    def note_job(job: Job, _context: object) -> None:
        loaded.append(job)

    event.listen(database.engine, "before_cursor_execute", note)
    event.listen(Job, "load", note_job)
    try:
        yield statements, loaded
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
        event.remove(Job, "load", note_job)


def test_a_tick_that_finds_nothing_to_do_only_reads(database: Database, stored: Stored) -> None:
    prepare(database)
    sample(database, stored, NEEDED + 1)
    succeed(database, jobs.PROXY_RUN)
    with watched(database) as (statements, _):
        tick(database)
    assert statements
    for statement in statements:
        assert statement == "BEGIN" or (statement.startswith("SELECT") and "FOR UPDATE" not in statement), (
            statement
        )


@pytest.mark.parametrize("stage", ["waits for a domain", "trains"])
def test_what_is_loaded_does_not_grow_with_the_runs_and_domains(
    database: Database, stored: Stored, stage: str
) -> None:
    """A tick, and what follows on a finished job: as many statements and rows for 200 of them as for 4."""
    costs = []
    kind = jobs.PREPARE_DOMAIN if stage == "waits for a domain" else jobs.PROXY_RUN
    if kind == jobs.PROXY_RUN:
        prepare(database)
        sample(database, stored, 4)
    for count in (4, 200):
        with database.write() as session:
            owner = stored.revision_id if kind == jobs.PREPARE_DOMAIN else stored.optimization_id
            session.add_all(jobs.new_job(kind, f"{count}-{index}", owner) for index in range(count))
        succeed(database, kind)
        with database.read() as session:
            ended = session.scalars(select(Job).where(Job.kind == kind, Job.state == jobs.SUCCEEDED)).first()
        assert ended is not None
        with watched(database) as (statements, loaded):
            tick(database)
            with database.write() as session:
                settle(session, ended)
        costs.append((len(statements), len(loaded)))
    assert costs[0] == costs[1]
    assert costs[1][1] == 0, "no job is loaded while others are under way"


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


def test_a_round_is_sampled_when_every_run_before_it_has_ended(database: Database, stored: Stored) -> None:
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings_of([NEEDED, 2, 1])
    prepare(database)
    for number, runs in enumerate((NEEDED, 2, 1)):
        assert queued(database) == {jobs.SAMPLE_SWARM: 1}
        sample(database, stored, runs)
        assert queued(database) == {jobs.PROXY_RUN: runs}
        for _ in range(runs):
            tick(database)
            assert jobs.SAMPLE_SWARM not in queued(database), f"round {number + 1} was sampled too early"
            succeed(database, jobs.PROXY_RUN)
    assert queued(database) == {jobs.SOLVE: 1}
    with database.read() as session:
        runs = session.execute(select(Run.position, Run.round).order_by(Run.position)).all()
    rounds = [0] * NEEDED + [1, 1, 2]
    assert [tuple(row) for row in runs] == list(enumerate(rounds))


def test_a_round_sampled_twice_is_stored_once(database: Database, stored: Stored) -> None:
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings_of([NEEDED, 2])
    prepare(database)
    sample(database, stored, NEEDED)
    for _ in range(NEEDED):
        succeed(database, jobs.PROXY_RUN)

    def twice(session: Session, job: Job) -> None:
        for _ in range(2):
            sample_swarm.store(session, job, {"runs": [{"weights": {}, "tokens": 5}] * 2})
        settle(session, job)

    succeed(database, jobs.SAMPLE_SWARM, twice)
    with database.read() as session:
        runs = session.scalars(select(Run).where(Run.round == 1)).all()
    assert [(run.position, run.tokens) for run in runs] == [(NEEDED, 5), (NEEDED + 1, 5)]


def test_a_first_round_that_lost_too_many_runs_ends_the_optimization(
    database: Database, stored: Stored
) -> None:
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings_of([NEEDED, 2])
    prepare(database)
    sample(database, stored, NEEDED)
    lose(database, jobs.PROXY_RUN)
    for _ in range(NEEDED - 1):
        succeed(database, jobs.PROXY_RUN)
    assert optimization(database, stored).failure_code == "too_few_runs"
    assert queued(database) == {}


def test_rounds_nothing_is_learned_from_need_their_runs_together_only(
    database: Database, stored: Stored
) -> None:
    settings = settings_of([4, 4], needed=7, sampler="perturbation")
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings
    prepare(database)
    sample(database, stored, 4)
    lose(database, jobs.PROXY_RUN)
    for _ in range(3):
        succeed(database, jobs.PROXY_RUN)
    assert queued(database) == {jobs.SAMPLE_SWARM: 1}, "3 and 4 to come are enough"
    sample(database, stored, 4)
    lose(database, jobs.PROXY_RUN)
    for _ in range(3):
        succeed(database, jobs.PROXY_RUN)
    ended = optimization(database, stored)
    assert (ended.state, ended.failure_code) == (jobs.FAILED, "too_few_runs")


def test_a_round_that_lost_more_than_later_ones_can_make_good_is_the_last(
    database: Database, stored: Stored
) -> None:
    settings = settings_of([4, 4], needed=7, sampler="perturbation")
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings
    prepare(database)
    sample(database, stored, 4)
    for _ in range(2):
        lose(database, jobs.PROXY_RUN)
    for _ in range(2):
        succeed(database, jobs.PROXY_RUN)
    ended = optimization(database, stored)
    assert (ended.state, ended.failure_code) == (jobs.FAILED, "too_few_runs")
    assert "4 more being still to come" in str(ended.failure_detail)


def replan(database: Database, stored: Stored, rounds: list[int], older: int) -> None:
    """Let the optimization count so many older runs, so that so many fewer new ones are needed."""
    reuse = {"runs": [f"run_{index}" for index in range(older)]}
    settings = {**settings_of(rounds, needed=max(NEEDED - older, 0)), "reuse": reuse}
    with database.write() as session:
        session.get_one(Optimization, stored.optimization_id).settings = settings


def test_older_runs_count_towards_what_the_regression_needs(database: Database, stored: Stored) -> None:
    replan(database, stored, [2], older=NEEDED - 1)
    prepare(database)
    sample(database, stored, 2)
    succeed(database, jobs.PROXY_RUN)
    lose(database, jobs.PROXY_RUN)
    assert queued(database) == {jobs.SOLVE: 1}


def test_one_too_few_says_how_many_older_runs_there_were(database: Database, stored: Stored) -> None:
    replan(database, stored, [2], older=NEEDED - 2)
    prepare(database)
    sample(database, stored, 2)
    succeed(database, jobs.PROXY_RUN)
    lose(database, jobs.PROXY_RUN)
    ended = optimization(database, stored)
    assert (ended.state, ended.failure_code) == (jobs.FAILED, "too_few_runs")
    assert f"needs 2 beside {NEEDED - 2} older ones" in (ended.failure_detail or "")


def test_without_a_new_run_the_mixture_is_solved_at_once(database: Database, stored: Stored) -> None:
    replan(database, stored, [], older=NEEDED)
    prepare(database)
    assert queued(database) == {jobs.SOLVE: 1}
    succeed(database, jobs.SOLVE)
    assert optimization(database, stored).state == jobs.SUCCEEDED
