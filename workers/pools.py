"""Workers for those who have none that stand by: array jobs on a scheduler, asked for while jobs wait.

A thread of the supervisor, or of the dispatcher, looks every ``poll_seconds`` whether jobs wait that no element at
the scheduler is about to take, and asks for as many elements, up to the launcher's ``workers``. It keeps nothing: how
many there are the scheduler says (`store.launchers.pool`). Two that ask at once ask for too many, which find nothing
to do and end.
"""

import hashlib
import logging
import secrets
import shutil
import threading
import time
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from proxy_models.storage import StorageFailed, write_atomically
from store.engine import Database
from store.launchers import read_launchers
from store.launchers.pool import SETTINGS, Array, Pool
from store.launchers.scheduler import Refused, SchedulerAway
from store.logs import first_line
from store.settings import Settings
from workers.claims.claim import claimable

log = logging.getLogger("mixwright.pools")

KEPT = 10
"""Arrays whose logs are kept when all have ended."""
TICK_SECONDS = 1.0


class Pools:
    """The pools of the operator's launchers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        launchers = read_launchers(settings.launchers).items()
        self.pools = {name: each for name, each in launchers if isinstance(each, Pool) and each.workers}
        self._due = dict.fromkeys(self.pools, 0.0)

    def keep(self, stopping: threading.Event) -> None:
        """Ask for workers as jobs come, until ``stopping`` is set."""
        while self.pools and not stopping.is_set():
            self.look_around()
            stopping.wait(TICK_SECONDS)

    def look_around(self) -> None:
        """Look once at each pool that is due."""
        for name, pool in self.pools.items():
            if time.monotonic() < self._due[name]:
                continue
            self._due[name] = time.monotonic() + pool.poll_seconds
            try:
                self.ask(name, pool)
            except (SchedulerAway, Refused, SQLAlchemyError, StorageFailed) as error:  # asked again
                log.warning("workers of %s: %s", name, first_line(error))

    def ask(self, name: str, pool: Pool) -> int:
        """Ask for the elements that are missing; answers how many. Raises `SchedulerAway` and `Refused`."""
        with self.database.read() as session:
            waiting = session.scalar(select(func.count()).select_from(claimable().order_by(None).subquery()))
        known = pool_name(name, self.settings)
        if not waiting:
            return 0
        there = pool.elements(known)
        missing = min(pool.workers - there.waiting - there.running, waiting - there.waiting)
        if missing <= 0:
            return 0
        directory = self.settings.artifacts / "pools" / known
        if not there.waiting + there.running:
            _forget(directory)
        job = f"{known}-{secrets.token_hex(4)}"
        array = Array(known, job, directory / job, missing)
        rendering = pool.array(array)
        array.directory.mkdir(parents=True, mode=0o700)
        (array.directory / SETTINGS).touch(mode=0o600)
        (array.directory / SETTINGS).write_text(pool.settings_of_worker(self.settings.environment()))
        for path, content in rendering.files.items():
            write_atomically(Path(path), content.encode())
        external_id = pool.submit(rendering, job)
        log.info("%s: %d workers asked for, as %s", name, missing, external_id)
        return missing


def pool_name(launcher: str, settings: Settings) -> str:
    """What a scheduler knows a launcher's workers by: of this service, and of no other on the cluster."""
    service = f"{settings.resolved_database_url} {settings.artifacts.resolve()}"
    return f"mixwright-workers-{hashlib.sha256(f'{launcher} {service}'.encode()).hexdigest()[:12]}"


def _forget(directory: Path) -> None:
    """Drop the arrays of a pool that has none running, but for the newest."""
    arrays = sorted(directory.glob("*/"), key=lambda each: each.stat().st_mtime)
    for each in arrays[:-KEPT]:
        shutil.rmtree(each, ignore_errors=True)
