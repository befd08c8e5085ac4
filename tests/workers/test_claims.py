"""One set of promises, kept on SQLite and on PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.engine import Database
from store.jobs import (
    CANCELLED,
    FAILED,
    FULL_RUN,
    PROXY_RUN,
    QUEUED,
    RUNNING,
    SOLVE,
    SUCCEEDED,
    cancel_jobs,
    new_job,
    requeue_jobs,
)
from store.tables import Base, DomainSet, Job, database_now
from workers.claims.claim import (
    Claim,
    LeaseLost,
    Standing,
    acknowledge_cancel,
    claim,
    fail,
    finish,
    heartbeat,
    reap,
    release,
)
from workers.claims.failures import OUT_OF_MEMORY, WORKER_LOST, Failure

FINE = Standing(frozenset(), frozenset())
LEASE = 60.0
LOST = Failure("io_error", "disk went away", retryable=True)
BROKEN = Failure("diverged", "training diverged at step 3", retryable=False)


def add_jobs(database: Database, *jobs: Job) -> list[str]:
    with database.write() as session:
        session.add_all(jobs)
        session.flush()
        return [job.id for job in jobs]


def take(database: Database, worker: str = "w1") -> Claim:
    taken = claim(database, worker, LEASE)
    assert taken is not None
    return taken


def job_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def expire(database: Database) -> None:
    """Let every lease run out now, by the database's own clock."""
    with database.write() as session:
        session.execute(update(Job).values(lease_expires_at=database_now() - 1))


def make_available(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Job).values(available_at=database_now() - 1))


def storing(name: str) -> Callable[[Session, Job], None]:
    return lambda session, _job: session.add(DomainSet(name=name))


def stored(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(DomainSet.name).order_by(DomainSet.name)))


def nothing(_session: Session, _job: Job) -> None:
    pass


def test_order_is_priority_then_position_then_age(database: Database) -> None:
    late, early, solve = add_jobs(
        database,
        new_job(PROXY_RUN, "run_b", "opt", position=1),
        new_job(PROXY_RUN, "run_a", "opt", position=0),
        new_job(SOLVE, "opt", "opt"),
    )
    assert [take(database).job_id for _ in range(3)] == [solve, early, late]
    assert claim(database, "w1", LEASE) is None


def test_asking_in_vain_keeps_nobody_from_writing(database: Database) -> None:
    add_jobs(database, new_job(PROXY_RUN, "run_a", "opt"))
    take(database)
    with database.write():  # the only writer that SQLite has
        assert claim(database, "w1", LEASE) is None
        assert reap(database) == []


def test_claim_can_be_narrowed_to_kinds_and_to_one_job(database: Database) -> None:
    _, second = add_jobs(database, new_job(PROXY_RUN, "run_a", "opt"), new_job(PROXY_RUN, "run_b", "opt"))
    assert claim(database, "w1", LEASE, kinds=[SOLVE]) is None
    taken = claim(database, "w1", LEASE, job_id=second)
    assert taken is not None
    assert (taken.job_id, taken.subject, taken.attempt) == (second, "run_b", 1)
    assert claim(database, "w2", LEASE, job_id=second) is None


def test_a_job_is_not_claimed_before_it_is_available(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    assert fail(database, take(database), LOST) == QUEUED
    assert claim(database, "w1", LEASE) is None
    assert job_of(database, job_id).failure_code == "io_error"
    make_available(database)
    assert take(database).attempt == 2


def test_eight_threads_never_hold_the_same_job(database: Database) -> None:
    jobs = add_jobs(database, *(new_job(PROXY_RUN, f"run_{i}", "opt", i) for i in range(60)))
    barrier = threading.Barrier(8)
    taken: list[str] = []
    lost: list[BaseException] = []

    def work(name: str) -> None:
        barrier.wait()
        try:
            while (mine := claim(database, name, LEASE)) is not None:
                taken.append(mine.job_id)
                finish(database, mine, storing(mine.job_id))
        except Exception as error:
            lost.append(error)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A skipped locked row may send a worker home early, but no row is lost: whoever holds it finishes it.
    while (mine := claim(database, "last", LEASE)) is not None:
        taken.append(mine.job_id)
        finish(database, mine, storing(mine.job_id))
    assert not lost
    assert Counter(taken) == Counter(jobs)
    assert stored(database) == sorted(jobs)


def test_heartbeat_renews_the_lease_and_shows_progress(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    mine = take(database)
    expire(database)
    assert heartbeat(database, {mine: {"done": 3, "total": 9}}) == FINE
    job = job_of(database, job_id)
    assert (job.state, job.progress) == (RUNNING, {"done": 3, "total": 9})
    assert reap(database) == []
    heartbeat(database, {mine: None})
    assert job_of(database, job_id).progress == {"done": 3, "total": 9}


def test_one_heartbeat_tells_of_each_job_whether_it_goes_on(database: Database) -> None:
    add_jobs(database, *(new_job(PROXY_RUN, f"run_{i}", f"opt_{i}", i) for i in range(3)))
    going, cancelled, lost = (take(database) for _ in range(3))
    with database.write() as session:
        cancel_jobs(session, "opt_1")
        session.execute(update(Job).where(Job.id == lost.job_id).values(lease_token="another's"))
    shown = {claim: {"done": number} for number, claim in enumerate((going, cancelled, lost))}
    assert heartbeat(database, shown) == Standing(frozenset({cancelled}), frozenset({lost}))
    assert [job_of(database, claim.job_id).progress for claim in shown] == [{"done": 0}, {"done": 1}, None]


def test_a_heartbeat_does_not_wait_for_a_row_that_somebody_is_writing(postgres_url: str) -> None:
    database = Database(postgres_url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    add_jobs(database, *(new_job(PROXY_RUN, f"run_{i}", "opt", i) for i in range(2)))
    first, second = take(database), take(database)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == first.job_id).values(position=7))
        assert heartbeat(database, {first: {"done": 1}, second: {"done": 2}}) == FINE
    assert [job_of(database, one.job_id).progress for one in (first, second)] == [None, {"done": 2}]
    database.close()


def test_finish_and_its_result_are_one_transaction(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    mine = take(database)

    def broken(session: Session, job: Job) -> None:
        storing("half")(session, job)
        session.flush()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk"):
        finish(database, mine, broken)
    assert stored(database) == []
    finish(database, mine, storing("whole"))
    job = job_of(database, job_id)
    assert (job.state, job.lease_token, stored(database)) == (SUCCEEDED, None, ["whole"])
    assert job.finished_at is not None
    assert job.busy_seconds >= 0


def test_a_late_finish_that_still_owns_its_token_is_accepted(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    mine = take(database)
    expire(database)
    finish(database, mine, storing("late"))
    assert job_of(database, job_id).state == SUCCEEDED
    assert stored(database) == ["late"]


def test_a_stale_token_changes_nothing(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    stale = take(database, "slow")
    expire(database)
    reap(database)
    fresh = take(database, "fast")
    assert heartbeat(database, {stale: {"done": 1}}).lost == {stale}
    assert job_of(database, job_id).progress is None
    writes: list[Callable[[], object]] = [
        lambda: finish(database, stale, storing("stale")),
        lambda: fail(database, stale, BROKEN),
        lambda: release(database, stale),
        lambda: acknowledge_cancel(database, stale),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match=job_id):
            write()
    finish(database, fresh, storing("fresh"))
    with pytest.raises(LeaseLost):
        finish(database, fresh, storing("twice"))
    assert stored(database) == ["fresh"]
    assert job_of(database, job_id).attempt == 2


def test_what_cannot_be_retried_fails_at_once(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    assert fail(database, take(database), BROKEN, storing("settled")) == FAILED
    job = job_of(database, job_id)
    assert (job.failure_code, job.failure_detail) == ("diverged", "training diverged at step 3")
    assert stored(database) == ["settled"]
    make_available(database)
    assert claim(database, "w1", LEASE) is None


@pytest.mark.parametrize(("failure", "attempts"), [(LOST, 3), (Failure(OUT_OF_MEMORY, "12 GiB", True), 2)])
def test_attempts_are_capped(database: Database, failure: Failure, attempts: int) -> None:
    add_jobs(database, new_job(SOLVE, "opt", "opt"))
    for _ in range(attempts - 1):
        assert fail(database, take(database), failure) == QUEUED
        make_available(database)
    assert fail(database, take(database), failure) == FAILED


def lose_a_worker(
    database: Database, held_seconds: float = 0.0, settled: Callable[[Session, Job], None] = nothing
) -> str:
    """Claim the only job and let the lease run out, ``held_seconds`` after it was claimed; answers the new state."""
    take(database)
    with database.write() as session:
        expired = database_now() - 1
        session.execute(update(Job).values(lease_expires_at=expired, started_at=expired - held_seconds))
    (reaped,) = reap(database, settled)
    make_available(database)
    return reaped.state


def test_a_job_that_loses_ten_workers_fails_for_one_of_them_may_have_been_its_fault(
    database: Database,
) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    states = [lose_a_worker(database, settled=storing("settled")) for _ in range(10)]
    assert states == [QUEUED] * 9 + [FAILED]
    assert job_of(database, job_id).failure_code == WORKER_LOST
    assert stored(database) == ["settled"]


def test_lost_workers_leave_a_job_all_attempts_for_its_own_faults(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(PROXY_RUN, "run", "opt"))
    states = []
    for _ in range(3):
        for _ in range(2):
            states.append(lose_a_worker(database))
        states.append(fail(database, take(database), LOST))
        make_available(database)
    assert states == [QUEUED] * 8 + [FAILED]
    assert (job_of(database, job_id).attempt, job_of(database, job_id).failure_code) == (9, "io_error")


def test_a_child_that_died_counts_as_a_lost_worker(database: Database) -> None:
    add_jobs(database, new_job(PROXY_RUN, "run", "opt"))
    states = []
    for _ in range(10):
        states.append(fail(database, take(database), Failure(WORKER_LOST, "ended by SIGKILL", True)))
        make_available(database)
    assert states == [QUEUED] * 9 + [FAILED]


def test_a_run_of_days_may_lose_any_number_of_workers_it_got_far_with(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(FULL_RUN, "run", "launch"))
    assert {lose_a_worker(database, held_seconds=3600.0) for _ in range(30)} == {QUEUED}
    assert job_of(database, job_id).attempt == 0
    assert [lose_a_worker(database) for _ in range(10)] == [QUEUED] * 9 + [FAILED]


def test_what_leaves_no_checkpoint_gets_nowhere_however_long_it_takes(database: Database) -> None:
    add_jobs(database, new_job(SOLVE, "opt", "opt"))
    assert [lose_a_worker(database, held_seconds=3600.0) for _ in range(10)] == [QUEUED] * 9 + [FAILED]


def test_a_retry_gives_all_attempts_and_lost_workers_back(database: Database) -> None:
    add_jobs(database, new_job(SOLVE, "opt", "opt"))
    for _ in range(10):
        lose_a_worker(database)
    with database.write() as session:
        assert requeue_jobs(session, "opt") == 1
    assert [lose_a_worker(database) for _ in range(10)] == [QUEUED] * 9 + [FAILED]


def test_release_gives_the_attempt_back(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    for _ in range(5):
        mine = take(database)
        heartbeat(database, {mine: None})
        release(database, mine)
    job = job_of(database, job_id)
    assert (job.state, job.attempt, job.lease_token) == (QUEUED, 0, None)


def test_cancel_ends_the_queued_at_once_and_the_held_at_the_next_heartbeat(database: Database) -> None:
    held, waiting = add_jobs(database, *(new_job(PROXY_RUN, f"run_{i}", "opt", i) for i in range(2)))
    mine = take(database)
    with database.write() as session:
        cancel_jobs(session, "opt")
    assert job_of(database, waiting).state == CANCELLED
    assert heartbeat(database, {mine: None}).stop == {mine}
    acknowledge_cancel(database, mine, storing("settled"))
    assert job_of(database, held).state == CANCELLED
    assert stored(database) == ["settled"]


@pytest.mark.parametrize("how", ["reaped", "failed", "released"])
def test_a_cancelled_job_is_not_queued_again(database: Database, how: str) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    mine = take(database)
    with database.write() as session:
        cancel_jobs(session, "opt")
    if how == "reaped":
        expire(database)
        reap(database)
    elif how == "failed":
        fail(database, mine, LOST)
    else:
        release(database, mine)
    assert job_of(database, job_id).state == CANCELLED


def test_finished_work_is_kept_even_when_cancel_was_asked_meanwhile(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    mine = take(database)
    with database.write() as session:
        cancel_jobs(session, "opt")
    finish(database, mine, nothing)
    assert job_of(database, job_id).state == SUCCEEDED


def test_busy_seconds_of_a_vanished_worker_end_with_its_lease(database: Database) -> None:
    (job_id,) = add_jobs(database, new_job(SOLVE, "opt", "opt"))
    take(database)
    with database.write() as session:
        now = session.scalars(select(database_now())).one()
        session.execute(update(Job).values(started_at=now - 1000, lease_expires_at=now - 400))
    reap(database)
    assert job_of(database, job_id).busy_seconds == pytest.approx(600, abs=1e-3)
