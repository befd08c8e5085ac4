"""The embedded worker: ``python -m workers.supervisor`` runs jobs on this machine without any broker.

So many slots, each a thread with one warm child process: on CPUs, and one more for each accelerator, which then has
the training to itself. The main thread takes back expired leases and advances optimizations, and another
follows what was handed to schedulers. It polls the same ``claim`` that Celery's workers use.
"""

import logging
import os
import stat
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from store.engine import CONNECTIONS, Database
from store.lifeline import exit_with_parent, stop_on_signals
from store.logs import configure_logging
from store.schema import require_schema
from store.settings import NoSuchDevice, Settings, require_devices, settings_or_exit
from store.tracing import configure_tracing
from workers.claims.registry import Pauses, Registry, SlotFlag
from workers.claims.slots import Slot, slots_of
from workers.execution.child_handle import Child
from workers.execution.execute import Worker
from workers.execution.waves import work_once
from workers.follower import Follower
from workers.pipeline import tick

log = logging.getLogger("mixwright.supervisor")

TICK_SECONDS = 0.5
AFTER_ERROR_SECONDS = 2.0


def supervise(settings: Settings, stopping: threading.Event) -> None:
    """Run jobs until ``stopping`` is set; then every child is ended and every job given back."""
    slots = slots_of(settings)
    # No slot waits for another's connection, nor does what takes back leases.
    database = Database(settings.resolved_database_url, max(CONNECTIONS, len(slots) + 2))
    registry = Registry(database, slots, Pauses(settings.pause_seconds))
    try:
        registry.register()
    except SQLAlchemyError:  # a store that is away at the start is asked again with every beat
        log.exception("register")
    threads = [
        threading.Thread(target=_slot, args=(database, settings, stopping, registry, slot), name=slot.name)
        for slot in slots
    ]
    threads.append(
        threading.Thread(target=Follower(database, settings).follow, args=(stopping,), name="follower")
    )
    for thread in threads:
        thread.start()
    log.info("supervisor %d: %s", os.getpid(), ", ".join(slot.name for slot in slots) or "no slots")
    while not stopping.is_set():
        try:
            tick(database)
            registry.beat_if_due()
        except SQLAlchemyError:
            log.exception("tick")
        stopping.wait(TICK_SECONDS)
    for thread in threads:
        thread.join()
    try:
        registry.leave()
    except SQLAlchemyError:
        log.exception("leaving")
    database.close()


def _slot(
    database: Database, settings: Settings, stopping: threading.Event, registry: Registry, slot: Slot
) -> None:
    worker = Worker(database, settings, SlotFlag(stopping, registry, slot), slot)
    child = Child()
    try:
        while not stopping.is_set():
            try:
                if not work_once(worker, slot, registry, child):
                    stopping.wait(settings.poll_seconds)
            except Exception:  # the edge of the worker: a slot that died silently would never be missed
                # Mostly the store did not answer; the next attempt goes on from what the child has on disk.
                log.exception("slot %s", slot.full_name)
                child.kill()
                stopping.wait(AFTER_ERROR_SECONDS)
    finally:
        child.kill()


def main() -> None:
    """Run until SIGTERM, SIGINT or, when started by another process, its end."""
    settings = settings_or_exit()
    configure_logging(settings)
    configure_tracing("supervisor")
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):  # not /dev/null, whose end means nothing
        exit_with_parent()
    try:
        require_devices(settings.accelerators)
    except NoSuchDevice as error:
        sys.exit(str(error))
    require_schema(settings.resolved_database_url)
    with stop_on_signals() as stopping:
        supervise(settings, stopping)


if __name__ == "__main__":
    main()
