"""Users take turns: nobody's swarm keeps another's from being trained, on both databases."""

from collections import Counter

import pytest

from store.engine import Database
from store.jobs import PREPARE_DOMAIN, PROXY_RUN, new_job
from workers.claims.claim import Claim, claim, finish, release
from workers.execution.waves import claim_companions

LEASE = 30.0


def add(database: Database, user: str, number: int, kind: str = PROXY_RUN) -> None:
    with database.write() as session:
        session.add_all(new_job(kind, f"{user}_{kind}_{i}", user, i, user) for i in range(number))


def next_of(database: Database) -> Claim:
    found = claim(database, "w", LEASE)
    assert found is not None
    return found


def done(database: Database, held: Claim) -> None:
    finish(database, held, lambda _session, _job: None)


def test_one_slot_serves_each_user_in_turn_however_many_jobs_another_has(database: Database) -> None:
    add(database, "ann", 50)
    for _ in range(3):
        done(database, next_of(database))
    add(database, "ben", 4)
    add(database, "eve", 20, PREPARE_DOMAIN)  # more urgent, but for those who wait for them only
    order = []
    for _ in range(12):
        held = next_of(database)
        order.append(held.owner)
        done(database, held)
    assert Counter(order) == {"ann": 4, "ben": 4, "eve": 4}
    assert all(len(set(order[first : first + 3])) == 3 for first in range(0, 12, 3))


def test_the_slots_are_shared_evenly_and_those_nobody_else_wants_are_not_left_idle(
    database: Database,
) -> None:
    add(database, "ann", 20)
    assert {next_of(database).owner for _ in range(6)} == {"ann"}, "nobody else waits"
    add(database, "ben", 20)
    held = [next_of(database) for _ in range(6)]
    assert {one.owner for one in held} == {"ben"}, "until both have six slots"
    assert Counter(next_of(database).owner for _ in range(4)) == {"ann": 2, "ben": 2}


def test_runs_trained_together_hold_one_slot(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.execution import waves

    add(database, "ann", 8)
    first = next_of(database)
    monkeypatch.setattr(
        waves, "_like", lambda session, one: waves.claimable().where(waves.Job.owner == one.owner)
    )
    assert len(claim_companions(database, first, "w", 8)) == 8
    add(database, "ben", 8)
    assert [next_of(database).owner for _ in range(2)] == ["ben", "ben"]


def test_jobs_given_back_and_those_of_nobody_known_are_claimed_too(database: Database) -> None:
    add(database, "", 1)
    held = next_of(database)
    release(database, held)
    assert next_of(database).job_id == held.job_id
