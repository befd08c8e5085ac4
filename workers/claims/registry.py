"""What workers tell of themselves, and what they are told: draining, paused, or to go on.

Each slot has a row that its process renews. A device on which several different jobs in a row failed for what may be
its own fault is paused with the reason, and tries again after a while: longer each time, until a job succeeds there.
What killed them may be over, or may not have been the device at all (a cluster that kills processes); a service all
of whose devices wait for somebody to look at them would be stuck. Each end of a pause is a trial: one more failure
and the device is paused again, for twice as long. One that somebody paused stays so, after a restart too.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from store.engine import Database
from store.jobs import PROXY_RUN
from store.tables import GONE_SECONDS, WorkerRow, database_now
from workers.claims.failures import PERHAPS_THE_DEVICE
from workers.claims.slots import Flag, Slot
from workers.execution.execute import Ended

log = logging.getLogger("mixwright.worker")

ACTIVE, DRAINING, PAUSED = "active", "draining", "paused"
FAILURES_ALLOWED = 3
"""So many different jobs in a row, and the device is paused."""
BEAT_SECONDS = 5.0
PAUSE_SECONDS = 60.0
FORGET_SECONDS = 7 * 86_400.0
"""After so long unseen a slot's row goes: its machine will not come back."""


LONGEST_SECONDS = 3600.0


def training_slots_in(database: Database) -> int:
    """Slots that take proxy runs and were seen lately, on whichever machine."""
    live = (WorkerRow.left_at.is_(None), WorkerRow.seen_at > database_now() - GONE_SECONDS)
    with database.read() as session:
        kinds = session.scalars(select(WorkerRow.kinds).where(*live, WorkerRow.state == ACTIVE)).all()
    return sum(each is None or PROXY_RUN in each for each in kinds)


class Pauses:
    """When the pauses of one process' slots end, by the slots' names; ``clock`` gives seconds."""

    def __init__(self, first_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._clock = first_seconds, clock
        self._ends: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def is_over(self, name: str) -> bool:
        """Of a slot that is paused: whether it may try again. The first question starts the time."""
        if name not in self._ends:
            seconds = min(self._first * 2 ** self._times.get(name, 0), LONGEST_SECONDS)
            self._ends[name] = self._clock() + seconds
            self._times[name] = self._times.get(name, 0) + 1
        if self._clock() < self._ends[name]:
            return False
        del self._ends[name]
        return True

    def succeeded(self, name: str) -> None:
        """A job has: the next pause is a first one again."""
        self._ends.pop(name, None)
        self._times.pop(name, None)


class Registry:
    """The rows of one process' slots; safe to use from the threads of all of them."""

    def __init__(self, database: Database, slots: Sequence[Slot], pauses: Pauses | None = None) -> None:
        self.database, self.slots = database, slots
        self._own = WorkerRow.name.in_([slot.full_name for slot in slots])
        self._pauses = pauses or Pauses(PAUSE_SECONDS)
        self._states: dict[str, str] = {}
        self._lock = threading.Lock()
        self._next_beat = 0.0

    def register(self) -> None:
        """Say that the slots are there. One that was paused stays paused; one that was drained is active again."""
        with self.database.write() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.seen_at < database_now() - FORGET_SECONDS))
            for slot in self.slots:
                self._register(session, slot)
        self.beat()

    def beat(self) -> None:
        """Say that the slots are still there, and hear what they are meant to do."""
        with self.database.write() as session:
            session.execute(update(WorkerRow).where(self._own).values(seen_at=database_now(), left_at=None))
            rows = session.scalars(select(WorkerRow).where(self._own)).all()
            for row in rows:
                self._perhaps_try_again(row)
            states = {row.name: row.state for row in rows}
        missing = [slot for slot in self.slots if slot.full_name not in states]
        if missing:  # forgotten while this process was stopped
            with self.database.write() as session:
                for slot in missing:
                    self._register(session, slot)
        with self._lock:
            self._states = states

    def beat_if_due(self) -> None:
        """`beat`, where the last one is `BEAT_SECONDS` ago."""
        if time.monotonic() >= self._next_beat:
            self.beat()
            self._next_beat = time.monotonic() + BEAT_SECONDS

    def forget(self) -> None:
        """Take the slots' rows away: none of that name will come again."""
        with self.database.write() as session:
            session.execute(delete(WorkerRow).where(self._own))

    def leave(self) -> None:
        """Say that the slots' process ends."""
        with self.database.write() as session:
            session.execute(update(WorkerRow).where(self._own).values(left_at=database_now()))

    def state(self, slot: Slot) -> str:
        """What the slot is meant to do, as last heard."""
        with self._lock:
            return self._states.get(slot.full_name, ACTIVE)

    def ended(self, slot: Slot, ended: Ended) -> None:
        """Note how the slot's last order ended; pause the slot after `FAILURES_ALLOWED` failed ones."""
        failures = [
            f"{claim.job_id}: {failure.code}: {failure.detail}"
            for claim, failure in ended.failures
            if failure.code in PERHAPS_THE_DEVICE
        ]
        if not ended.succeeded and not failures:
            return
        with self.database.write() as session:
            row = session.scalars(select(WorkerRow).where(WorkerRow.name == slot.full_name)).first()
            if row is None:  # the next beat registers it
                return
            if ended.tokens_per_second is not None:
                row.tokens_per_second = ended.tokens_per_second
            if ended.succeeded:
                row.failures = []
                self._pauses.succeeded(slot.full_name)
                return
            # The runs of a wave fail together; a job tried again and again says nothing new about the device.
            known = {one.partition(":")[0] for one in row.failures}
            if failures[0].partition(":")[0] not in known:
                row.failures = [*row.failures, failures[0]]
            if len(row.failures) >= FAILURES_ALLOWED and row.state == ACTIVE:
                row.state = PAUSED
                row.reason = (
                    f"{len(row.failures)} different jobs in a row failed here: {'; '.join(row.failures)}"
                )
                log.error("%s is paused: %s", row.name, row.reason)
                with self._lock:
                    self._states[slot.full_name] = PAUSED

    def _perhaps_try_again(self, row: WorkerRow) -> None:
        # One that somebody paused has no such failures: resuming and pausing by hand clear them.
        if row.state == PAUSED and len(row.failures) >= FAILURES_ALLOWED and self._pauses.is_over(row.name):
            log.warning("%s was paused and tries again", row.name)
            row.state, row.reason = ACTIVE, None
            row.failures = row.failures[: FAILURES_ALLOWED - 1]

    def _register(self, session: Session, slot: Slot) -> None:
        now = database_now()
        values = {**slot.describe(), "started_at": now, "seen_at": now, "left_at": None}
        row = session.scalars(select(WorkerRow).where(WorkerRow.name == slot.full_name)).first()
        if row is None:
            row = WorkerRow(name=slot.full_name, state=ACTIVE, failures=[])
            session.add(row)
        for name, value in values.items():
            setattr(row, name, value)
        if row.state == DRAINING:
            row.state, row.reason = ACTIVE, None


class SlotFlag:
    """Set when the process is stopping, or when the slot was paused: either way its jobs are given back."""

    def __init__(self, stopping: Flag, registry: Registry, slot: Slot) -> None:
        self.stopping, self.registry, self.slot = stopping, registry, slot

    def is_set(self) -> bool:
        """See `workers.claims.slots.Flag`."""
        return self.stopping.is_set() or self.registry.state(self.slot) == PAUSED

    def wait(self, timeout: float) -> bool:
        """See `workers.claims.slots.Flag`."""
        self.stopping.wait(timeout)
        return self.is_set()
