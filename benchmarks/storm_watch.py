"""Who has which job, looked at ten times a second: how long after a blow everything it hit was at work again."""

import threading
import time
from dataclasses import dataclass, field

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from store.engine import Database

LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Held:
    """A job in a worker's hands: which lease, and the process that has it."""

    job_id: str
    token: str
    worker: str


@dataclass
class Blow:
    """A signal sent to a process at ``time`` (seconds since the epoch), and the leases it may have cost.

    ``suspects`` are those of the processes hit. One that was not taken away after all (its job finished, or went on
    after a pause) was not hit.
    """

    what: str
    time: float
    suspects: list[Held]


@dataclass
class Watch:
    """A thread that notes when each lease was first seen running, and when it was last seen."""

    database: Database
    seen: dict[Held, float] = field(default_factory=dict)
    leases: dict[str, list[Held]] = field(default_factory=dict)
    blows: list[Blow] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Look until `stop`."""
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def held(self) -> list[Held]:
        """What is in hands now."""
        query = "SELECT id, lease_token, worker, state FROM jobs WHERE lease_token IS NOT NULL"
        with self.database.read() as session:
            rows = session.execute(text(query)).all()
        now = time.time()
        found = [Held(*row[:3]) for row in rows]
        for one, row in zip(found, rows, strict=True):
            if row[3] == "running" and one not in self.seen:
                self.seen[one] = now
                self.leases.setdefault(one.job_id, []).append(one)
        return found

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.held()
            except SQLAlchemyError:
                continue

    def seconds_to_running(self) -> list[tuple[str, float]]:
        """Of each blow and job that was taken from a worker by it: until another lease on it ran.

        A blow may hit several jobs of a wave: each is counted. One that finished within a look, before it was seen
        running, counts at its end.
        """
        query = text("SELECT job_id, ended_at, outcome, failure_code FROM attempts ORDER BY ended_at")
        with self.database.read() as session:
            attempts = session.execute(query).all()
        found = []
        for blow in self.blows:
            for suspect in blow.suspects:
                ends = [row for row in attempts if row[0] == suspect.job_id and row[1] >= blow.time]
                if not ends or ends[0][2] == "succeeded":
                    continue  # it finished all the same
                again = [
                    self.seen[one]
                    for one in self.leases.get(suspect.job_id, ())
                    if one.token != suspect.token and self.seen[one] >= blow.time
                ]
                later = [row[1] for row in ends[1:2]]
                found.append((blow.what, min(again + later) - blow.time))
        return found
