"""Telling a broker that there is work. A hint carries a job's id, and may be lost."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import or_
from sqlalchemy.orm import Session

from store.clock import database_now
from store.engine import Database
from store.tables import Job
from workers.claims.claim import claimable

RESEND_SECONDS = 5.0
"""A job still queued so long after its hint gets another: the first may have gone down with the broker, or with a
worker that was stopped with its connection open. At most `MOST_WAITING` are ever under way."""
MOST_WAITING = 100
"""Hints that may wait at the broker. Workers busy for hours take none, and what is sent again would pile up."""


@dataclass(frozen=True)
class Hint:
    """That a job of this kind waits, and how urgently: lower ``priority`` first."""

    job_id: str
    kind: str
    priority: int


def send_hints(
    database: Database,
    send: Callable[[Hint], None],
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
        hints = _note(session, resend_seconds, limit)
    for hint in hints:
        send(hint)
    return len(hints)


def _note(session: Session, resend_seconds: float, limit: int) -> list[Hint]:
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
    return [Hint(row.id, row.kind, row.priority) for row in rows]
