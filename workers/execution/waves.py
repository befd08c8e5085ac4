"""Runs trained together: how many a worker takes at once, by which backend, and which queued ones they are.

As the operator says, or as measured: only the child has torch and knows its device, so it is asked; where the swarm
is long enough to be worth it, it measures first.
"""

import logging
import math
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from store.engine import Database
from store.jobs import PROXY_RUN
from store.logs import first_line
from store.settings import AUTO
from store.tables import Job, Run
from workers.claims.claim import Claim, claim, claimable, heartbeat, take
from workers.claims.registry import ACTIVE, Registry, training_slots_in
from workers.claims.slots import Slot
from workers.execution.child_handle import Child, ChildDied
from workers.execution.execute import STORE_IS_AWAY, Worker, run_claims, specification
from workers.jobs import CHOOSE_WAVE

SHRINK = 4
"""A wave's second attempt is so many times smaller, and further ones are made alone: one of the runs may be what
killed the worker."""


@dataclass(frozen=True)
class Wave:
    """How the runs of a swarm are trained: up to ``members`` at once on ``backend``; None is one run by itself."""

    backend: str | None = None
    members: int = 1


ALONE = Wave()


def wave_for(worker: Worker, claim: Claim, waiting: int, child: Child) -> Wave:
    """How to train the claimed run and the others of ``waiting`` like it; a slot takes its share of them at most."""
    settings = worker.settings
    try:
        spec = specification(worker, claim)
    except SQLAlchemyError:
        raise
    except Exception:  # what is wrong with the run is recorded with it, when it is described to be trained
        return ALONE
    if spec.get("architecture") is not None:
        return ALONE  # no stack holds another's architecture
    if settings.backend != AUTO:
        return Wave(settings.backend, fair_share(worker, waiting))
    question = {
        "run": spec,
        "runs": fair_share(worker, waiting),
        "sharing": settings.slots_a_device,
        "directory": str(settings.calibrations),
    }
    answer = _ask(worker, claim, child, question)
    return ALONE if answer is None else Wave(answer["backend"], answer["members"])


def fair_share(worker: Worker, waiting: int) -> int:
    """The most runs a slot should take at once of ``waiting`` ones, so that the others have work too.

    The others are the slots of this machine, and all that other machines have told the store of.
    """
    slots = max(worker.settings.training_slots, training_slots_in(worker.database))
    return max(1, min(worker.settings.wave_members, math.ceil(waiting / slots)))


def _ask(worker: Worker, claim: Claim, child: Child, question: dict[str, Any]) -> dict[str, Any] | None:
    """The child's answer, the lease renewed meanwhile; None where there is none, and the run is trained as it is."""
    next_heartbeat = time.monotonic() + worker.settings.heartbeat_seconds
    try:
        child.order(CHOOSE_WAVE, [question])
        while not worker.stopping.is_set():
            message = child.message(timeout=min(worker.settings.heartbeat_seconds, 0.2))
            if message is not None:
                if "failure" in message:
                    log.warning("how to train %s: %s", claim.subject, message["failure"]["detail"])
                return message.get("result")
            if child.silence > worker.settings.silence_seconds:
                break
            if time.monotonic() >= next_heartbeat:
                next_heartbeat = time.monotonic() + worker.settings.heartbeat_seconds
                if not _is_held(worker, claim):
                    break
    except ChildDied as death:
        log.warning("how to train %s: %s", claim.subject, death)
        return None
    child.kill()  # whatever it measures is not needed any more
    return None


def _is_held(worker: Worker, claim: Claim) -> bool:
    """Renew the lease. A store that is away takes nobody's job away."""
    try:
        standing = heartbeat(worker.database, {claim: None})
    except STORE_IS_AWAY as error:
        log.warning("heartbeat: the store does not answer: %s", first_line(error))
        return True
    return not (standing.stop or standing.lost)


@dataclass(frozen=True)
class ClaimedJobs:
    """Claimed jobs to be done at once; ``backend`` is what trains runs, None for everything else."""

    claims: list[Claim]
    backend: str | None = None


def next_work(
    worker: Worker,
    name: str,
    child: Child,
    kinds: Collection[str] | None = None,
) -> ClaimedJobs | None:
    """Claim the first job that waits and the runs to be trained with it.

    ``child``, which will train them, may be asked how. None: there is nothing to do.
    """
    database, settings = worker.database, worker.settings
    first = claim(database, name, settings.lease_seconds, kinds)
    if first is None:
        return None
    if first.kind != PROXY_RUN:
        return ClaimedJobs([first])
    wave = wave_for(worker, first, 1 + count_waiting(database, first), child)
    claims = claim_companions(database, first, name, most_together(wave, first))
    return ClaimedJobs(claims, wave.backend)


def work_once(worker: Worker, slot: Slot, registry: Registry, child: Child) -> bool:
    """Do the first thing that waits for a slot and note how it ended; False: nothing did."""
    if registry.state(slot) != ACTIVE:
        return False
    work = next_work(worker, f"{slot.full_name}:{os.getpid()}", child, slot.kinds)
    if work is not None:
        registry.ended(slot, run_claims(worker, work.claims, child, work.backend))
    return work is not None


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
    # Runs of one round have one proxy; another may have another number of tokens, and so another schedule.
    run = session.execute(select(Run.requested_tokens, Run.round).where(Run.id == claim.subject)).first()
    tokens, round_ = (None, None) if run is None else run
    return (
        claimable([PROXY_RUN])
        .join(Run, Run.id == Job.subject)
        .where(
            Job.owner == claim.owner,
            Job.attempt == claim.attempt - 1,
            Run.requested_tokens == tokens,
            Run.round == round_,
        )
    )


log = logging.getLogger("mixwright.worker")
