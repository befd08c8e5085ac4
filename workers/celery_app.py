"""Team mode: Celery moves hints between machines, the store keeps the jobs.

    celery -A workers.celery_app worker --concurrency 1     one a device
    celery -A workers.celery_app beat                       one in all: reaper, pipeline, hints

A task carries a job's id and claims that row, as the embedded supervisor does; a message that is lost, doubled or
late does no harm.
"""

import multiprocessing
import os
import socket
from functools import cache

from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutdown, worker_shutting_down

from service.database.engine import Database
from service.settings import Settings
from workers.child_handle import Child
from workers.claims import claim
from workers.dispatch import MOST_WAITING, send_hints
from workers.execution import Worker, run_claim
from workers.pipeline import tick

RUN_JOB = "mixwright.run_job"
QUEUE = "mixwright"
TICK_SECONDS = 2.0
VISIBILITY_SECONDS = 3600
"""When Redis delivers an unacknowledged hint again: late is harmless, early costs one look at the row."""

app = Celery("mixwright", broker=Settings().broker_url)
app.conf.update(
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBILITY_SECONDS},
    task_default_queue=QUEUE,
    beat_schedule={
        "tick": {"task": "mixwright.tick", "schedule": TICK_SECONDS, "options": {"expires": TICK_SECONDS}}
    },
)


# Made before the pool is forked: the process that hears of the shutdown is not the one that runs the job.
_stopping = multiprocessing.get_context("fork").Event()


@cache
def _worker() -> Worker:
    """Opened in the process that runs tasks, never in the one that forks them."""
    settings = Settings()
    return Worker(Database(settings.resolved_database_url), settings, _stopping)


@cache
def _child() -> Child:
    return Child()


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Claim the job and see it through; nothing to do when somebody else has it."""
    worker = _worker()
    name = f"{socket.gethostname()}:{os.getpid()}"
    claimed = claim(worker.database, name, worker.settings.lease_seconds, job_id=job_id)
    if claimed is not None:
        run_claim(worker, claimed, _child())


@app.task(name="mixwright.tick")
def tick_and_hint() -> None:
    """Take back expired leases, advance optimizations, and send hints for what waits."""
    database = _worker().database
    tick(database)
    send_hints(database, lambda job_id: app.send_task(RUN_JOB, (job_id,)), limit=MOST_WAITING - _waiting())


def _waiting() -> int:
    """Messages no worker has taken yet."""
    with app.connection_for_read() as connection:
        return app.amqp.queues[QUEUE](connection.default_channel).queue_declare().message_count


@worker_shutting_down.connect
def _give_back(**_: object) -> None:
    # A warm shutdown waits for the tasks that run; these give their jobs back and end at once.
    _stopping.set()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _end_child(**_: object) -> None:
    _child().kill()
