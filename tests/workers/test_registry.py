"""What workers tell of themselves and what they are told, on both databases."""

import os
import socket
import threading
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select, update

from store.engine import Database
from store.settings import Settings
from store.tables import WorkerRow, database_now
from workers.claims.claim import Claim
from workers.claims.failures import WORKER_LOST, Failure
from workers.claims.registry import ACTIVE, DRAINING, PAUSED, Pauses, Registry, SlotFlag
from workers.claims.slots import Slot, slots_of
from workers.execution.execute import Ended

SLOT = Slot("cpu-0", "cpu", None)
OTHER = Slot("cpu-1", "cpu", None)


@pytest.fixture
def registry(database: Database) -> Registry:
    registry = Registry(database, [SLOT, OTHER])
    registry.register()
    return registry


def row_of(database: Database, slot: Slot = SLOT) -> WorkerRow:
    with database.read() as session:
        return session.scalars(select(WorkerRow).where(WorkerRow.name == slot.full_name)).one()


def set_state(database: Database, state: str, slot: Slot = SLOT) -> None:
    with database.write() as session:
        session.execute(update(WorkerRow).where(WorkerRow.name == slot.full_name).values(state=state))


def failed(job: str, code: str = WORKER_LOST) -> Ended:
    claim = Claim(job, "proxy_run", "run", "opt", "token", 1, 30.0)
    return Ended(0, [(claim, Failure(code, "killed by SIGKILL", retryable=True))])


def test_a_worker_says_where_and_what_it_is(database: Database, registry: Registry) -> None:
    row = row_of(database)
    assert (row.host, row.device, row.process, row.state) == (
        socket.gethostname(),
        "cpu",
        os.getpid(),
        ACTIVE,
    )
    assert row.memory_bytes == psutil.virtual_memory().total
    assert row.versions.keys() >= {"python", "torch", "mixwright"}
    registry.leave()
    assert row_of(database).left_at is not None
    registry.beat()
    assert row_of(database).left_at is None


def test_it_hears_at_its_next_beat_what_it_is_meant_to_do(database: Database, registry: Registry) -> None:
    stopping = threading.Event()
    flag = SlotFlag(stopping, registry, SLOT)
    set_state(database, DRAINING)
    assert registry.state(SLOT) == ACTIVE
    registry.beat()
    assert (registry.state(SLOT), registry.state(OTHER)) == (DRAINING, ACTIVE)
    assert not flag.is_set(), "a draining worker finishes what it has"
    set_state(database, PAUSED)
    registry.beat()
    assert flag.is_set(), "a paused one gives it back"
    assert not SlotFlag(stopping, registry, OTHER).is_set()
    stopping.set()
    assert SlotFlag(stopping, registry, OTHER).is_set()


def test_a_drained_worker_is_active_again_after_a_restart_and_a_paused_one_is_not(
    database: Database, registry: Registry
) -> None:
    set_state(database, DRAINING)
    set_state(database, PAUSED, OTHER)
    again = Registry(database, [SLOT, OTHER])
    again.register()
    assert (again.state(SLOT), again.state(OTHER)) == (ACTIVE, PAUSED)


def test_three_different_jobs_failing_in_a_row_pause_their_device_with_the_reason(
    database: Database, registry: Registry
) -> None:
    for job in ("job_a", "job_b", "job_b"):
        registry.ended(SLOT, failed(job))
    assert row_of(database).state == ACTIVE, "one job that fails again says nothing new about the device"
    registry.ended(SLOT, failed("job_c"))
    row = row_of(database)
    assert row.state == registry.state(SLOT) == PAUSED
    assert row.reason is not None
    assert all(named in row.reason for named in ("job_a", "job_b", "job_c", "SIGKILL"))
    assert row_of(database, OTHER).state == ACTIVE


def test_a_success_or_a_fault_of_the_job_itself_does_not_count_against_the_device(
    database: Database, registry: Registry
) -> None:
    for job in ("job_a", "job_b"):
        registry.ended(SLOT, failed(job))
    registry.ended(SLOT, Ended(1, tokens_per_second=20_000.0))
    for job in ("job_c", "job_d"):
        registry.ended(SLOT, failed(job))
    for job in ("job_e", "job_f", "job_g"):
        registry.ended(SLOT, failed(job, "diverged"))
    assert row_of(database).state == ACTIVE
    assert row_of(database).tokens_per_second == 20_000.0


def test_a_row_forgotten_while_its_process_was_stopped_comes_back(
    database: Database, registry: Registry
) -> None:
    with database.write() as session:
        session.execute(update(WorkerRow).values(seen_at=database_now() - 30 * 86_400))
    Registry(database, []).register()
    registry.beat()
    assert row_of(database).state == ACTIVE


def test_accelerators_train_and_the_cpus_do_the_rest(tmp_path: Path) -> None:
    alone = slots_of(Settings(data_directory=tmp_path, slots=2))
    assert [(slot.device, slot.kinds) for slot in alone] == [("cpu", None), ("cpu", None)]
    both = slots_of(Settings(data_directory=tmp_path, slots=1, device="cuda:0,cuda:1"))
    assert [slot.device for slot in both] == ["cuda:0", "cuda:1", "cpu"]
    training = set(both[0].kinds or ())
    assert training == {"proxy_run", "full_run"} == set(both[1].kinds or ())
    assert training.isdisjoint(both[2].kinds or ())


def test_a_device_that_paused_itself_tries_again_and_is_paused_for_longer_by_one_more_failure(
    database: Database,
) -> None:
    now = [0.0]
    registry = Registry(database, [SLOT], Pauses(60.0, lambda: now[0]))
    registry.register()
    for job in ("job_a", "job_b", "job_c"):
        registry.ended(SLOT, failed(job))
    paused = []
    for job, seconds in (("job_d", 60.0), ("job_e", 120.0), ("job_f", 240.0)):
        registry.beat()
        now[0] += seconds - 1
        registry.beat()
        paused.append(registry.state(SLOT))
        now[0] += 1
        registry.beat()
        assert (registry.state(SLOT), row_of(database).reason) == (ACTIVE, None)
        registry.ended(SLOT, failed(job))
    assert paused == [PAUSED] * 3
    registry.beat()
    now[0] += 480.0
    registry.beat()
    registry.ended(SLOT, Ended(1))
    for job in ("job_g", "job_h", "job_i"):
        assert registry.state(SLOT) == ACTIVE
        registry.ended(SLOT, failed(job))
    registry.beat()
    now[0] += 60.0
    registry.beat()
    assert registry.state(SLOT) == ACTIVE, "after a success the first pause is short again"


def test_a_device_that_somebody_paused_stays_paused(database: Database) -> None:
    now = [0.0]
    registry = Registry(database, [SLOT], Pauses(60.0, lambda: now[0]))
    registry.register()
    set_state(database, PAUSED)
    registry.beat()
    now[0] = 1e6
    registry.beat()
    assert registry.state(SLOT) == PAUSED
