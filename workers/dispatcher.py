"""The dispatcher of the team mode: ``python -m workers.dispatcher``.

Takes back expired leases, advances optimizations, follows what was handed to schedulers and tells the broker what
waits. It keeps nothing, so it may be killed at any moment, and several may run. While the broker is away, the rest
goes on.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from kombu.exceptions import OperationalError as BrokerIsAway
from redis.exceptions import RedisError
from sqlalchemy import or_
from sqlalchemy.orm import Session

from store.engine import Database
from store.lifeline import stop_on_signals
from store.logs import configure_logging, first_line
from store.schema import require_schema
from store.settings import Settings, settings_or_exit
from store.tables import Job, database_now
from workers.celery_app import REST_QUEUE, RUN_JOB, TRAIN_QUEUE, app, queue_of
from workers.claims.claim import claimable
from workers.claims.registry import Registry
from workers.claims.slots import Slot
from workers.supervisor import oversee

log = logging.getLogger("mixwright.dispatcher")

SLOT = Slot("dispatcher", "none", ())
BROKER_SECONDS = 5.0
"""How long a broker may say nothing: leases and optimizations wait for it meanwhile."""


RESEND_SECONDS = 5.0
"""A job still queued so long after its hint gets another: the first may have gone down with the broker, or with a
worker that was stopped with its connection open. At most `MOST_WAITING` are ever under way."""
MOST_WAITING = 100
"""Hints that may wait at the broker. Workers busy for hours take none, and what is sent again would pile up."""


def send_hints(
    database: Database,
    send: Callable[[Job], None],
    resend_seconds: float = RESEND_SECONDS,
    limit: int = MOST_WAITING,
) -> int:
    """Send a hint for queued jobs that have none or an old one, ``limit`` at most; answers how many.

    A hint is noted before it is sent and sent after the note is committed: whichever process dies in between, the
    worst is a hint that comes ``resend_seconds`` late.
    """
    if limit <= 0:
        return 0
    with database.write() as session:
        waiting = _note(session, resend_seconds, limit)
    for job in waiting:
        send(job)
    return len(waiting)


def _note(session: Session, resend_seconds: float, limit: int) -> Sequence[Job]:
    due = (
        claimable()
        .where(
            or_(
                Job.hinted_at.is_(None),
                Job.hinted_at < Job.available_at,  # queued again since
                Job.hinted_at < database_now() - resend_seconds,
            )
        )
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.scalars(due).all()
    for row in rows:
        row.hinted_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
    return rows


def dispatch(settings: Settings, stopping: threading.Event) -> None:
    """Oversee until ``stopping`` is set."""
    database = Database(settings.resolved_database_url)

    def hint() -> None:
        try:
            send_hints(database, _send, limit=MOST_WAITING - _waiting())
        except (BrokerIsAway, RedisError, OSError) as error:
            log.warning("the broker does not answer: %s", first_line(error))

    oversee(database, settings, stopping, Registry(database, [SLOT]), further=hint)


def _send(job: Job) -> None:
    app.send_task(
        RUN_JOB,
        (job.id,),
        queue=queue_of(job.kind),
        priority=min(9, job.priority // 10),
        retry=False,
    )


def _waiting() -> int:
    """Messages no worker has taken yet."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=2)
        channel = connection.default_channel
        return sum(
            channel.queue_declare(name, passive=False).message_count for name in (TRAIN_QUEUE, REST_QUEUE)
        )


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = settings_or_exit()
    configure_logging(settings)
    require_schema(settings.resolved_database_url)
    patience = {"socket_connect_timeout": BROKER_SECONDS, "socket_timeout": BROKER_SECONDS}
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **patience}
    with stop_on_signals() as stopping:
        dispatch(settings, stopping)


if __name__ == "__main__":
    main()
