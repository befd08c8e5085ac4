"""The embedded worker: ``python -m workers.supervisor`` runs jobs on this machine without any broker.

So many slots, each a thread with one warm child process; the main thread takes back expired leases and advances
optimizations. It polls the same ``claim`` that Celery's workers use.
"""

import logging
import os
import signal
import socket
import stat
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.database.engine import Database
from service.lifeline import exit_with_parent
from service.settings import Settings
from workers.child_handle import Child
from workers.claims import claim
from workers.execution import Worker, run_claim
from workers.pipeline import tick

log = logging.getLogger("mixwright.supervisor")

TICK_SECONDS = 0.5
AFTER_ERROR_SECONDS = 2.0


def supervise(settings: Settings, stopping: threading.Event) -> None:
    """Run jobs until ``stopping`` is set; then every child is ended and every job given back."""
    database = Database(settings.resolved_database_url)
    worker = Worker(database, settings, stopping)
    slots = [
        threading.Thread(target=_slot, args=(worker, stopping, index), name=f"slot-{index}")
        for index in range(settings.slots)
    ]
    for slot in slots:
        slot.start()
    log.info("supervisor %d: %d slots on %s", os.getpid(), settings.slots, settings.device)
    while not stopping.is_set():
        try:
            for taken in tick(database):
                log.warning("%s %s: lease expired, now %s", taken.kind, taken.job_id, taken.state)
        except SQLAlchemyError:
            log.exception("tick")
        stopping.wait(TICK_SECONDS)
    for slot in slots:
        slot.join()
    database.close()


def _slot(worker: Worker, stopping: threading.Event, index: int) -> None:
    name = f"{socket.gethostname()}:{os.getpid()}:{index}"
    child = Child()
    try:
        while not stopping.is_set():
            try:
                claimed = claim(worker.database, name, worker.settings.lease_seconds)
                if claimed is None:
                    stopping.wait(worker.settings.poll_seconds)
                else:
                    run_claim(worker, claimed, child)
            except Exception:  # the edge of the worker: a slot that died silently would never be missed
                # Mostly the store did not answer; the next attempt goes on from what the child has on disk.
                log.exception("slot %s", name)
                child.kill()
                stopping.wait(AFTER_ERROR_SECONDS)
    finally:
        child.kill()


def main() -> None:
    """Run until SIGTERM, SIGINT or, when started by another process, its end."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):  # not /dev/null, whose end means nothing
        exit_with_parent()
    supervise(Settings(), stopping)


if __name__ == "__main__":
    main()
