"""The embedded worker: ``python -m workers.supervisor`` runs jobs on this machine without any broker.

So many slots, each a thread with one warm child process: on CPUs, and one more for each accelerator, which then has
the training to itself. The main thread takes back expired leases and advances optimizations, and another
follows what was handed to schedulers. It polls the same ``claim`` that Celery's workers use.

``--pool NAME`` makes it an element of an array job (`workers.pools`): it has slots of that name and nothing else, and
ends when none of them has found anything to do for ``--idle-seconds``.
"""

import argparse
import logging
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from sqlalchemy.exc import SQLAlchemyError

from store.engine import CONNECTIONS, Database
from store.lifeline import exit_with_parent, stop_on_signals
from store.logs import configure_logging, first_line
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
from workers.pools import Pools

log = logging.getLogger("mixwright.supervisor")

TICK_SECONDS = 0.5
AFTER_ERROR_SECONDS = 2.0


def supervise(settings: Settings, stopping: threading.Event) -> None:
    """Run jobs until ``stopping`` is set; then every child is ended and every job given back."""
    slots = slots_of(settings)
    # No slot waits for another's connection, nor does what takes back leases.
    database = Database(settings.resolved_database_url, max(CONNECTIONS, len(slots) + 3))
    registry = _registered(database, slots, settings)
    threads = _started(database, settings, stopping, registry, slots)
    log.info("supervisor %d: %s", os.getpid(), ", ".join(slot.name for slot in slots) or "no slots")
    oversee(database, settings, stopping, registry, threads)


def oversee(
    database: Database,
    settings: Settings,
    stopping: threading.Event,
    registry: Registry,
    threads: Sequence[threading.Thread] = (),
    further: Callable[[], object] = lambda: None,
) -> None:
    """Take back leases, advance optimizations, follow schedulers and keep pools until ``stopping`` is set.

    The slots of ``registry`` are told of meanwhile, and what is done ``further`` is done as often; then the
    ``threads`` are waited for.
    """
    follower, pools = Follower(database, settings), Pools(database, settings)
    beside = [threading.Thread(target=each, args=(stopping,)) for each in (follower.follow, pools.keep)]
    for thread in beside:
        thread.start()
    while not stopping.is_set():
        for what in (partial(tick, database), registry.beat_if_due, further):
            try:
                what()
            except SQLAlchemyError as error:  # it comes back, and nothing was kept here
                log.warning("the store does not answer: %s", first_line(error))
        stopping.wait(TICK_SECONDS)
    _ended([*threads, *beside], registry.leave, database)


def join_pool(settings: Settings, stopping: threading.Event, name: str, idle_seconds: float) -> None:
    """Run jobs on slots called after ``name`` until ``stopping`` is set or none has been found for so long."""
    slots = [replace(slot, name=f"{name}/{slot.name}") for slot in slots_of(settings)]
    database = Database(settings.resolved_database_url, max(CONNECTIONS, len(slots) + 1))
    registry = _registered(database, slots, settings)
    threads = _started(database, settings, stopping, registry, slots, idle_seconds)
    log.info("worker %s", name)
    while any(thread.is_alive() for thread in threads):
        try:
            registry.beat_if_due()
        except SQLAlchemyError:
            log.exception("beat")
        threads[0].join(TICK_SECONDS) if threads[0].is_alive() else stopping.wait(TICK_SECONDS)
    _ended(threads, registry.forget, database)


def _registered(database: Database, slots: Sequence[Slot], settings: Settings) -> Registry:
    registry = Registry(database, slots, Pauses(settings.pause_seconds))
    try:
        registry.register()
    except SQLAlchemyError:  # a store that is away at the start is asked again with every beat
        log.exception("register")
    return registry


def _started(
    database: Database,
    settings: Settings,
    stopping: threading.Event,
    registry: Registry,
    slots: Sequence[Slot],
    idle_seconds: float = inf,
) -> list[threading.Thread]:
    """A thread a slot."""
    about = (database, settings, stopping, registry)
    threads = [
        threading.Thread(target=_slot, args=(*about, slot, idle_seconds), name=slot.name) for slot in slots
    ]
    for thread in threads:
        thread.start()
    return threads


def _ended(threads: Sequence[threading.Thread], leave: Callable[[], None], database: Database) -> None:
    for thread in threads:
        thread.join()
    try:
        leave()
    except SQLAlchemyError:
        log.exception("leaving")
    database.close()


def _slot(
    database: Database,
    settings: Settings,
    stopping: threading.Event,
    registry: Registry,
    slot: Slot,
    idle_seconds: float,
) -> None:
    worker = Worker(database, settings, SlotFlag(stopping, registry, slot), slot)
    child = Child()
    busy_at = time.monotonic()
    try:
        while not stopping.is_set() and time.monotonic() - busy_at < idle_seconds:
            try:
                if work_once(worker, slot, registry, child):
                    busy_at = time.monotonic()
                else:
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
    parser = argparse.ArgumentParser(prog="python -m workers.supervisor")
    parser.add_argument("--pool", metavar="NAME", help="an element of an array job, by this name")
    parser.add_argument(
        "--idle-seconds", type=float, default=inf, help="of a pool: ends without work for so long"
    )
    asked = parser.parse_args()
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
        if asked.pool is None:
            supervise(settings, stopping)
        else:
            join_pool(settings, stopping, asked.pool, asked.idle_seconds)


if __name__ == "__main__":
    main()
