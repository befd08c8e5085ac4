"""The worker's side of claimed jobs: describe them, have a child execute them, renew the leases, store the results.

Most jobs are done alone; the runs of a wave are done at once, and each of them ends on its own: one that fails, is
cancelled or is taken away leaves the others to go on.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

from proxy_models.stores.file_system import again
from store.engine import Database
from store.jobs import TRAINING, note_tokens
from store.logs import bound, first_line
from store.series import keep_metrics
from store.settings import Settings
from store.tables import Job
from store.tracing import job_span
from workers.claims.claim import Claim, LeaseLost, acknowledge_cancel, fail, finish, heartbeat, release
from workers.claims.failures import DEVICE_FAILED, STOPPED, WORKER_LOST, Failure
from workers.claims.slots import Flag, Slot
from workers.execution.child_handle import Child, ChildDied
from workers.jobs import kind_named
from workers.pipeline import settle

log = logging.getLogger("mixwright.worker")


AGAIN_SECONDS = 2.0
"""Between two tries to reach a store that does not answer."""
PATIENCE_SECONDS = 600.0
"""How long a claimed or finished job waits for the store to come back before it is left to the reaper."""

STORE_IS_AWAY = (OperationalError, InterfaceError, NoConnection)
"""What a store raises that does not answer, be it that every connection of this process still waits for it."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Worker:
    """What a worker works with; ``stopping`` asks it to give its jobs back.

    ``settings`` are the machine's, and ``slot`` is the worker's of them; without one it trains on their only device.
    """

    database: Database
    settings: Settings
    stopping: Flag
    slot: Slot | None = None

    @property
    def own_settings(self) -> Settings:
        """The settings with the slot's device as the one to train on."""
        return self.settings.model_copy(update={"device": self.slot.device}) if self.slot else self.settings


@dataclass
class Ended:
    """How the jobs of an order ended: those that ``succeeded``, and the ``failures`` of those that did not.

    ``tokens_per_second`` is what was trained at, all runs together; None where nothing told.
    """

    succeeded: int = 0
    failures: list[tuple[Claim, Failure]] = field(default_factory=list)
    tokens_per_second: float | None = None


def log_fields(claim: Claim) -> dict[str, object]:
    """What every line about a claimed job carries, in the worker and in its child."""
    run = claim.subject if claim.kind in TRAINING else None
    fields = {"job_id": claim.job_id, "run_id": run, "owner": claim.owner, "worker": claim.worker}
    return {**{name: value for name, value in fields.items() if value}, "attempt": claim.attempt}


def specification(worker: Worker, claim: Claim) -> dict[str, Any]:
    """What is to be done, as the store says, and what the child may read for it (`data_roots.reading_below`)."""
    settings = worker.own_settings
    with settings.reading(), worker.database.read() as session:
        spec = kind_named(claim.kind).describe(session, session.get_one(Job, claim.job_id), settings)
    roots = [str(root) for root in settings.roots]
    return {**spec, "reading": {"roots": roots, "own": [str(settings.artifacts)]}}


def run_claims(worker: Worker, claims: Sequence[Claim], child: Child, backend: str | None = None) -> Ended:
    """See claimed jobs of one kind through to an end that is written in the store, or drop those taken away.

    Several are runs of one shape, trained together on ``backend``.
    """
    execution = _Execution(worker, child)
    first = claims[0]
    with job_span(first.kind, first.owner, log_fields(first)) as span:
        try:
            specs = execution.describe(claims)
            if specs:
                execution.order(specs, backend)
            while execution.open:
                execution.wait()
        except ChildDied as death:
            if worker.stopping.is_set():  # whoever stops the worker may have stopped its child as well
                execution.give_back()
            else:
                execution.fail_all(Failure(WORKER_LOST, str(death), retryable=True))
        finally:
            if execution.open:  # the store did not answer, and what is open nobody will ask for
                child.kill()
            span.set_attribute("mixwright.outcome", execution.outcome)
    return execution.ended


class _Execution:
    """Claimed jobs under way; ``open`` are those without an end, by their number in the child's order."""

    def __init__(self, worker: Worker, child: Child) -> None:
        self.worker, self.child = worker, child
        self.database = worker.database
        self.open: dict[int, Claim] = {}
        self.progress: dict[int, dict[str, Any] | None] = {}
        self.series: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)  # by run, still to be stored
        self.started = time.monotonic()
        self.ended = Ended()
        self.outcome = "nothing to do"
        # The first heartbeat comes at once: it says "running", and finds out about a cancelled job before any work.
        self.next_heartbeat = 0.0
        self.give_back_at: float | None = None

    def describe(self, claims: Sequence[Claim]) -> list[dict[str, Any]]:
        """The specifications of the jobs that can be done; what a kind complains about is its job's failure."""
        specs = []
        for claim in claims:
            try:
                spec = self.persistently(claim.kind, partial(specification, self.worker, claim))
            except STORE_IS_AWAY:
                raise
            except Exception as error:  # the edge of the worker: recorded with the job
                self.fail(claim, self.failure_of(claim, error, "describe"))
                continue
            self.open[len(specs)] = claim
            specs.append(spec)
        return specs

    def order(self, specs: list[dict[str, Any]], backend: str | None) -> None:
        """Have the child do them."""
        self.progress = dict.fromkeys(self.open)
        first = self.open[0]
        shared = {"owner": first.owner, "worker": first.worker, "attempt": first.attempt}
        fields = log_fields(first) if len(specs) == 1 else shared
        self.child.order(first.kind, specs, backend, fields)

    def wait(self) -> None:
        """The next thing that happens: a heartbeat, a message from the child, or the worker's own end."""
        if self.worker.stopping.is_set() and self.is_over():
            self.give_back()
            return
        if time.monotonic() >= self.next_heartbeat:
            self.beat()
            self.next_heartbeat = time.monotonic() + self.worker.settings.heartbeat_seconds
            if not self.open:
                return
        message = self.child.message(timeout=min(self.worker.settings.heartbeat_seconds, 0.2))
        if message is None:
            self.check_silence()
            return
        if message["member"] not in self.open:
            return
        member = message["member"]
        if "progress" in message:
            self.progress[member] = message["progress"]
            self.note_rate()
            return
        if "metrics" in message:
            self.series[self.open[member].subject] += message["metrics"]
            return
        claim = self.open.pop(member)
        if "result" in message:
            self.finish(claim, message["result"])
        elif (failure := Failure(**message["failure"])).code == STOPPED:
            self.release(claim, f"given back, {failure.detail}")
        else:
            self.fail(claim, failure)

    def is_over(self) -> bool:
        """Whether a stopping worker ends its child now: what trains is first given the time to write a checkpoint."""
        if self.give_back_at is None:
            trains = any(claim.kind in TRAINING for claim in self.open.values())
            self.give_back_at = time.monotonic() + (self.worker.settings.stop_seconds if trains else 0.0)
            if trains:
                self.child.stop()
        return time.monotonic() >= self.give_back_at

    def check_silence(self) -> None:
        """A child that says nothing at all was stopped or hangs: its jobs are somebody else's now."""
        allowed = self.worker.settings.silence_seconds
        if self.child.silence > allowed:
            self.child.kill()
            said = f"the process that ran the job said nothing for {allowed:.0f} s"
            self.fail_all(Failure(WORKER_LOST, said, retryable=True))

    def beat(self) -> None:
        """Renew the leases; stop what was cancelled or taken away. A store that is away stops nobody's training."""
        progress = {claim: self.progress[i] for i, claim in self.open.items()}
        kept: list[str] = []

        def keep(session: Session, claim: Claim) -> None:
            self.keep_series(session, claim.subject)
            kept.append(claim.subject)

        try:
            standing = heartbeat(self.database, progress, keep)
        except STORE_IS_AWAY as error:
            log.warning("heartbeat: the store does not answer: %s", first_line(error))
            return
        for subject in kept:
            self.series.pop(subject, None)
        ended = {i: claim for i, claim in self.open.items() if claim in standing.stop | standing.lost}
        for member in ended:
            del self.open[member]
            if self.open:
                self.child.cancel(member)
        if ended and not self.open:
            self.child.kill()
        for claim in ended.values():
            if claim in standing.lost:
                self.dropped(claim, "the lease was taken away")
            else:
                self.write(claim, "cancelled", partial(acknowledge_cancel, self.database, claim, self.settle))

    def keep_series(self, session: Session, subject: str) -> None:
        """Store what was measured of a run since the last time."""
        if metrics := self.series.get(subject):
            keep_metrics(session, subject, metrics)

    def settle(self, session: Session, job: Job) -> None:
        """What is written with the end of an attempt, whatever came of it."""
        self.keep_series(session, job.subject)
        settle(session, job)

    def note_rate(self) -> None:
        """What the runs under way train at, together."""
        rates = [float((one or {}).get("tokens_per_second") or 0.0) for one in self.progress.values()]
        if sum(rates) > 0:
            self.ended.tokens_per_second = sum(rates)

    def give_back(self) -> None:
        """The worker is shutting down: what it has not finished goes on elsewhere, from its last checkpoint."""
        self.child.kill()
        while self.open:
            _, claim = self.open.popitem()
            self.release(claim, "given back")

    def release(self, claim: Claim, outcome: str) -> None:
        """Give one job back."""
        self.write(claim, outcome, partial(release, self.database, claim))

    def finish(self, claim: Claim, result: dict[str, Any]) -> None:
        """Store the result. One that cannot be stored fails its job: another attempt would bring the same."""
        try:
            self.write(
                claim,
                "succeeded",
                lambda: finish(self.database, claim, lambda session, job: self.store(session, job, result)),
            )
            self.ended.succeeded += 1
        except STORE_IS_AWAY:
            raise
        except Exception as error:  # the edge of the worker: recorded with the job
            self.fail(claim, self.failure_of(claim, error, "store"))

    def store(self, session: Session, job: Job, result: dict[str, Any]) -> None:
        """Write the result, and what is written with every end."""
        kind_named(job.kind).store(session, job, result)
        session.flush()
        if job.kind in TRAINING:
            note_tokens(session, job, result["tokens"])
        self.settle(session, job)

    def fail_all(self, failure: Failure) -> None:
        """End every open job's attempt with ``failure``."""
        while self.open:
            _, claim = self.open.popitem()
            self.fail(claim, failure)

    def fail(self, claim: Claim, failure: Failure) -> None:
        """End the attempt with ``failure``."""
        self.ended.failures.append((claim, failure))
        if failure.code == DEVICE_FAILED:
            self.child.kill()  # what a process had on a device that failed is gone with it
        self.write(
            claim,
            f"failed ({failure.code}: {failure.detail})",
            partial(fail, self.database, claim, failure, self.settle),
        )

    def failure_of(self, claim: Claim, error: Exception, what: str) -> Failure:
        """The failure that ``error`` stands for, with its traceback in the log where nobody foresaw it."""
        failure = Failure.of(error)
        if failure.code == "internal_error":
            with bound(**log_fields(claim)):
                log.exception("%s: %s", claim.kind, what)
        return failure

    def write(self, claim: Claim, outcome: str, end: Callable[[], str | None]) -> None:
        """Write the job's end by ``end``, unless it is somebody else's by now."""
        with bound(**log_fields(claim)):
            try:
                state = self.persistently(claim.kind, end)
            except LeaseLost as lost:
                self.dropped(claim, str(lost))
                return
            self.outcome = outcome if state is None else f"{state}, {outcome}"
            log.info("%s: %s after %.1f s", claim.kind, self.outcome, time.monotonic() - self.started)

    def persistently(self, kind: str, ask: Callable[[], Answer]) -> Answer:
        """``ask()``, again and again while the store is away: hours of training may hang on it."""

        def note(error: Exception) -> None:
            log.warning("%s: the store does not answer: %s", kind, first_line(error))

        return again(ask, STORE_IS_AWAY, PATIENCE_SECONDS, AGAIN_SECONDS, note, self.worker.stopping.wait)

    def dropped(self, claim: Claim, why: str) -> None:
        """The job is not this worker's any more."""
        self.outcome = "lease lost"
        with bound(**log_fields(claim)):
            log.warning("%s: dropped: %s", claim.kind, why)
