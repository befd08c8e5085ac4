"""Team mode: Celery moves hints between machines, the store keeps the jobs.

    celery -A workers.celery_app worker --concurrency 1     one a device
    python -m workers.dispatcher                            reaper, pipeline, hints: one, or several

A task carries a job's id, and only wakes a worker: it claims that row, as the embedded supervisor does, and then
whatever else waits for its device. A message that is lost, doubled or late does no harm.
"""

import logging
import os
import threading
import time
from functools import cache

from celery import Celery
from celery.signals import (
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from kombu.entity import Queue
from sqlalchemy.exc import SQLAlchemyError

from store.engine import Database
from store.jobs import TRAINING
from store.logs import configure_logging, first_line
from store.schema import OldSchema, require_schema
from store.settings import NoSuchDevice, Settings, require_devices, settings_or_exit
from store.tracing import configure_tracing
from workers.claims.registry import BEAT_SECONDS, Pauses, Registry, SlotFlag
from workers.claims.slots import NOT_TRAINING, SharedFlag, Slot
from workers.execution.child_handle import Child
from workers.execution.execute import Worker
from workers.execution.waves import work_once

log = logging.getLogger("mixwright.worker")

RUN_JOB = "mixwright.run_job"
TRAIN_QUEUE, REST_QUEUE = "mixwright.train", "mixwright.rest"
VISIBILITY_SECONDS = 3600
"""When Redis delivers an unacknowledged hint again: late is harmless, early costs one look at the row."""
PARENT_SECONDS = 1.0
"""How often a process of the pool looks whether the worker's main process is still there."""
PRIORITY_STEPS = list(range(10))
"""Of the broker, 0 first: a job's own priority, in tens."""


def kinds_of(settings: Settings) -> tuple[str, ...]:
    """The kinds of job a worker of these settings takes: an accelerator trains, a CPU does what it is told to."""
    work = settings.work
    if work == "auto":
        work = "training" if settings.accelerators else "all"
    return {"training": TRAINING, "rest": NOT_TRAINING, "all": (*TRAINING, *NOT_TRAINING)}[work]


def queue_of(kind: str) -> str:
    """Where hints of a kind of job go."""
    return TRAIN_QUEUE if kind in TRAINING else REST_QUEUE


SETTINGS = settings_or_exit()
app = Celery("mixwright", broker=SETTINGS.broker_url)
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    # A broker that restarts takes hints with it, which are sent again; nobody's training has to stop for that.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_SECONDS,
        "queue_order_strategy": "priority",
        "priority_steps": PRIORITY_STEPS,
    },
    task_default_queue=REST_QUEUE,
    task_queues=[Queue(name) for name in sorted({queue_of(kind) for kind in kinds_of(SETTINGS)})],
)


# Made before the pool is forked: the process that hears of the shutdown is not the one that runs the job.
_stopping = SharedFlag()
_at_work = threading.Lock()
_node = "celery"


@celeryd_init.connect
def _remember_name(sender: str, **_: object) -> None:
    global _node  # before the fork, so that the process that runs jobs knows it too
    _node = sender.partition("@")[0]


@celeryd_init.connect
def _require_device(**_: object) -> None:
    accelerators = SETTINGS.accelerators
    if len(accelerators) > 1:
        raise SystemExit(
            f"MIXWRIGHT_DEVICE={SETTINGS.device}: a Celery worker has one device, start one for each"
        )
    try:
        require_devices(accelerators)
    except NoSuchDevice as error:
        raise SystemExit(str(error)) from error


@cache
def _slot() -> Slot:
    return Slot(_node, SETTINGS.device, kinds_of(SETTINGS))


@cache
def _database() -> Database:
    """Opened in the process that runs tasks, never in the one that forks them."""
    configure_tracing("worker")
    require_schema(SETTINGS.resolved_database_url)
    return Database(SETTINGS.resolved_database_url)


@cache
def _registry() -> Registry:
    return Registry(_database(), [_slot()], Pauses(SETTINGS.pause_seconds))


@setup_logging.connect
def _log_as_everything_else(**_: object) -> None:
    configure_logging(SETTINGS)


@cache
def _child() -> Child:
    return Child()


@worker_process_init.connect
def _register(**_: object) -> None:
    threading.Thread(target=_beat, name="registry", daemon=True).start()


@worker_process_init.connect
def _end_with_main_process(**_: object) -> None:
    """Where the worker's main process was killed, another is started, and two must not share its device."""
    main = os.getppid()

    def watch() -> None:
        while os.getppid() == main:
            time.sleep(PARENT_SECONDS)
        _stopping.set()  # what is under way is given back, with a checkpoint
        with _at_work:
            _child().kill()
            os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


@worker_ready.connect
def _register_solo(sender: object, **_: object) -> None:
    if type(sender.pool).__module__.endswith(".solo"):  # pyright: ignore[reportAttributeAccessIssue]
        _register()


def _beat() -> None:
    """Say every few seconds that this worker is there, and hear what it is meant to do."""
    registered = False
    while not _stopping.is_set():
        try:
            _registry().beat() if registered else _registry().register()
            registered = True
        except (SQLAlchemyError, OldSchema) as error:  # away, or not migrated yet: asked again
            log.warning("registry: %s", first_line(error))
        _stopping.wait(BEAT_SECONDS)


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Claim what waits, whatever job the hint is about, and see it through; nothing to do when others have it all."""
    with _at_work:
        try:
            _work()
        except BaseException:
            _child().kill()  # whatever it still does belongs to nobody
            raise


def _work() -> None:
    slot, registry = _slot(), _registry()
    worker = Worker(_database(), SETTINGS, SlotFlag(_stopping, registry, slot))
    while not _stopping.is_set() and work_once(worker, slot, registry, _child()):
        pass


@worker_shutting_down.connect
def _give_back(**_: object) -> None:
    # A warm shutdown waits for the tasks that run; these give their jobs back and end at once.
    _stopping.set()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _end_child(**_: object) -> None:
    _child().kill()
