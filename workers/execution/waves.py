"""Runs taken together: which queued runs of a swarm a worker trains beside the first one it claimed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from store.engine import Database
from store.jobs import PROXY_RUN
from store.tables import Job, Run
from workers.claims.claim import Claim, claim, claimable, take
from workers.execution.child_handle import Child
from workers.execution.execute import Worker
from workers.execution.wave_policy import Wave, wave_for

SHRINK = 4
"""A wave's second attempt is so many times smaller, and further ones are made alone: one of the runs may be what
killed the worker."""


@dataclass(frozen=True)
class Work:
    """Claimed jobs to be done at once; ``backend`` is what trains runs, None for everything else."""

    claims: list[Claim]
    backend: str | None = None


def next_work(
    worker: Worker,
    name: str,
    child: Child,
    kinds: Collection[str] | None = None,
    job_id: str | None = None,
) -> Work | None:
    """Claim the first job that waits (or ``job_id``, if it still does) and the runs to be trained with it.

    ``child``, which will train them, may be asked how. None: there is nothing to do.
    """
    database, settings = worker.database, worker.settings
    first = claim(database, name, settings.lease_seconds, kinds, job_id)
    if first is None:
        return None
    if first.kind != PROXY_RUN:
        return Work([first])
    wave = wave_for(worker, first, 1 + count_waiting(database, first), child)
    claims = claim_companions(database, first, name, most_together(wave, first))
    return Work(claims, wave.backend)


def most_together(wave: Wave, claim: Claim) -> int:
    """How many runs may be trained at once with a claimed one, it included: fewer on later attempts."""
    if claim.attempt == 1:
        return wave.members
    return max(1, wave.members // SHRINK) if claim.attempt == 2 else 1


def claim_companions(database: Database, claim: Claim, worker: str, most: int) -> list[Claim]:
    """Lease further queued runs of the swarm and shape of ``claim``, so that with it they are at most ``most``.

    The first in the queue are taken, of those at the same attempt. Answers all claims, ``claim`` first.
    """
    if most <= 1:
        return [claim]
    with database.write() as session:
        rows = session.scalars(
            _like(session, claim).limit(most - 1).with_for_update(skip_locked=True, of=Job)
        ).all()
        claims = [claim, *(take(row, worker, claim.lease_seconds) for row in rows)]
        for row in rows:
            row.shared_by = len(claims)
        session.execute(
            update(Job)
            .where(Job.id == claim.job_id, Job.lease_token == claim.token)
            .values(shared_by=len(claims))
        )
    return claims


def count_waiting(database: Database, claim: Claim) -> int:
    """The runs that could be claimed beside ``claim`` now."""
    with database.read() as session:
        waiting = _like(session, claim).order_by(None).subquery()
        return session.scalar(select(func.count()).select_from(waiting)) or 0


def _like(session: Session, claim: Claim) -> Select[Any]:
    # Runs of one swarm have one proxy; a round may have another number of tokens, and so another schedule.
    tokens = session.scalar(select(Run.tokens).where(Run.id == claim.subject))
    return (
        claimable([PROXY_RUN])
        .join(Run, Run.id == Job.subject)
        .where(
            Job.owner == claim.owner,
            Job.attempt == claim.attempt - 1,
            Run.tokens.is_not_distinct_from(tokens),
        )
    )
