"""How many runs of a swarm a worker trains at once, and by which backend: as the operator says, or as measured.

Only the child has torch and knows its device, so it is asked; where the swarm is long enough to be worth it, it
measures first.
"""

import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from store.settings import AUTO, Settings
from store.tables import Job
from workers.claims.claim import Claim, heartbeat
from workers.execution.child_handle import Child, ChildDied
from workers.execution.execute import STORE_IS_AWAY, Worker
from workers.jobs import CHOOSE_WAVE, KINDS

log = logging.getLogger("mixwright.worker")


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
        with worker.database.read() as session:
            spec = KINDS[claim.kind].describe(
                session, session.get_one(Job, claim.job_id), worker.own_settings
            )
    except SQLAlchemyError:
        raise
    except Exception:  # what is wrong with the run is recorded with it, when it is described to be trained
        return ALONE
    if spec.get("architecture") is not None:
        return ALONE  # no stack holds another's architecture
    if settings.backend != AUTO:
        return Wave(settings.backend, fair_share(settings, waiting))
    question = {
        "run": spec,
        "runs": fair_share(settings, waiting),
        "sharing": settings.slots_a_device,
        "directory": str(settings.calibrations),
    }
    answer = _ask(worker, claim, child, question)
    return ALONE if answer is None else Wave(answer["backend"], answer["members"])


def fair_share(settings: Settings, waiting: int) -> int:
    """The most runs a slot should take at once of ``waiting`` ones, so that the others have work too."""
    return max(1, min(settings.wave_members, math.ceil(waiting / settings.training_slots)))


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
        log.warning("heartbeat: the store does not answer: %s", str(error).strip().splitlines()[0])
        return True
    return not (standing.stop or standing.lost)
