"""Launches on a scheduler: handed over once, followed, cancelled and collected, without a worker.

A thread of the supervisor, or of the dispatcher, looks at every live submission once in its launcher's
``poll_seconds``. All it knows is in the database, so it may be killed at any moment, and several may run:

- A submission's row, with the name the scheduler knows it by, is there before it is handed over. Where nobody knows
  whether it was, what it leaves on the disk is looked for and the scheduler is asked for the name; only who finds
  neither hands it over.
- Whoever looks at a submission holds its row by a token until `LEASE_SECONDS` later, and writes only while it does.
- Two that hand over all the same, for one was stopped in between, start two jobs of which one trains, and that one
  is followed (`store.launchers.scheduler`).
- Another submission of a launch begins only when the one before has ended.
"""

import logging
import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, object_session

from proxy_models.training.run_files import Followed
from store import jobs
from store.documents import LaunchDocument
from store.engine import Database
from store.launchers.base import Commanded, Work, submission_name
from store.launchers.scheduler import (
    ENDED,
    QUEUED,
    RUNNING,
    Refused,
    Scheduler,
    SchedulerAway,
    Seen,
    Standing,
    exit_status_in,
    started_by,
    submission_directory,
)
from store.launchers.work import exports_of, require_shards, work_of
from store.logs import bound, first_line
from store.series import keep_metrics
from store.settings import Settings
from store.tables import Document, Job, Launch, Run, Submission, database_now
from workers.claims.claim import claimable, end, is_any, retry_or_end
from workers.claims.failures import Failure
from workers.jobs import kind_named
from workers.jobs.external_run import configured, results_of
from workers.jobs.launch_results import collect
from workers.pipeline import settle
from workers.submission import CANCELLED, Outcome, collected, handed_over, withdrawn

log = logging.getLogger("mixwright.follower")

TICK_SECONDS = 1.0
BATCH = 100
"""Submissions begun, and looked at, in one round."""
LEASE_SECONDS = 600.0
"""Longer than all that one look asks of a scheduler may take."""
AWAY_SECONDS, WAITING_SECONDS = 5.0, 2.0
"""Until a scheduler that did not answer, and a launch that waits for its domains, are looked at again."""
_PREPARATION = (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN, jobs.COMPARE_DOMAINS)


class NotHeld(RuntimeError):
    """Somebody else looks at the submission by now: nothing was written."""


class Waiting(RuntimeError):
    """It cannot be handed over yet."""


@dataclass(frozen=True)
class Held:
    """A submission in this process's hands, as it was when it was taken."""

    id: str
    token: str
    job_id: str
    number: int
    launcher: str
    name: str
    external_id: str | None
    reported: Document | None


@dataclass(frozen=True)
class About:
    """What a submission is of."""

    run_id: str
    launcher: Scheduler
    work: Work
    launch: LaunchDocument
    exports: Document
    results: Document
    is_cancelled: bool


@dataclass(frozen=True)
class Measured:
    """What is new of the built-in trainer's run: its metrics, and how far it is."""

    run_id: str
    metrics: list[Document]
    progress: Document | None


class Follower:
    """Looks at a store's submissions; what it keeps between two looks can be read again."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.runs: dict[str, Followed] = {}

    def follow(self, stopping: threading.Event) -> None:
        """Follow what there is until ``stopping`` is set."""
        while not stopping.is_set():
            try:
                self.look_around(stopping)
            except SQLAlchemyError as error:  # the store comes back
                log.warning("submissions: %s", first_line(error))
            stopping.wait(TICK_SECONDS)

    def look_around(self, stopping: threading.Event) -> int:
        """Begin what is queued and look once at what is due; answers at how many submissions."""
        begin(self.database)
        away: set[str] = set()
        for number in range(BATCH):
            held = None if stopping.is_set() else take(self.database, away)
            if held is None:
                return number
            with bound(submission=held.name):
                try:
                    self._look(held)
                except SchedulerAway as error:  # nor will it answer for the others of this round
                    away.add(held.launcher)
                    log.warning("%s does not answer: %s", held.launcher, first_line(error))
                    note(self.database, held, AWAY_SECONDS, Standing(QUEUED, f"does not answer: {error}"))
                except NotHeld as error:
                    log.warning("dropped: %s", error)
        return BATCH

    def _look(self, held: Held) -> None:
        """What nobody foresaw ends only what was never handed over: a launch that trains must not be lost for it."""
        try:
            self.look(held)
        except (SchedulerAway, NotHeld, SQLAlchemyError):
            raise
        except Waiting as reason:
            note(self.database, held, WAITING_SECONDS, Standing(QUEUED, str(reason)))
        except Exception as error:  # the edge of the follower
            log.exception("look")
            failure = Failure.of(error)
            if held.external_id is None:
                close(self.database, held, Outcome(failure=failure))
            else:
                note(self.database, held, AWAY_SECONDS, Standing(QUEUED, f"{failure.code}: {failure.detail}"))

    def look(self, held: Held) -> None:
        """Hand it over if it was not, see how it is, and write that, or what came of it.

        Raises `SchedulerAway`, and `Waiting` where it cannot be handed over yet.
        """
        about = self._about(held)
        begun = started_by(submission_directory(about.work))
        external_id = held.external_id if begun in (None, CANCELLED) else begun
        if external_id is None and (external_id := self._begun(held, about)) is None:
            return
        seen = Seen(held.name, external_id, held.reported)
        standing = about.launcher.follow(seen)
        run = self.runs.setdefault(held.id, Followed(about.work.run_directory))
        measured = Measured(about.run_id, run.metrics(), run.progress())
        # Done is done, whatever a queue says that has lost its last seconds; what failed it may have started again.
        is_done = exit_status_in(submission_directory(about.work)) == 0
        if standing is not None and standing.state != ENDED and not is_done:
            if about.is_cancelled:
                about.launcher.cancel(seen)
            note(self.database, held, about.launcher.poll_seconds, standing, external_id, measured)
            return
        outcome = collected(about.work, standing, about.is_cancelled, self.settings)
        if outcome.result is not None and about.work.order is None:
            outcome.result.update(collect(about.work.directory, about.results))
        close(self.database, held, outcome, standing, measured)
        del self.runs[held.id]
        about.launcher.forget(seen)

    def _begun(self, held: Held, about: About) -> str | None:
        """The scheduler's id of a submission not known to be handed over; None where that ended it."""
        try:
            if about.is_cancelled:
                external_id = withdrawn(about.work) or about.launcher.find(held.name)
            else:
                external_id = handed_over(about.launcher, about.work, about.launch, about.exports)
        except (SchedulerAway, SQLAlchemyError):
            raise
        except Exception as error:  # the scheduler's refusal, or what is wrong with the launch
            refused = Failure("submission_refused", str(error), retryable=False)
            failure = refused if isinstance(error, Refused) else Failure.of(error)
            close(self.database, held, Outcome(failure=failure))
            return None
        if external_id is None:
            close(self.database, held, Outcome())
        else:
            log.info("%s has it as %s", held.launcher, external_id)
            note(self.database, held, LEASE_SECONDS, Standing(QUEUED), external_id)
        return external_id

    def _about(self, held: Held) -> About:
        launcher = configured(held.launcher, Scheduler, self.settings)
        with self.database.read() as session:
            job = session.get_one(Job, held.job_id)
            launch, run = session.get_one(Launch, job.owner), session.get_one(Run, job.subject)
            document, revision = LaunchDocument.of(launch), launch.mixture.revision
            if held.external_id is None and not document.is_program and not job.cancel_requested:
                if jobs.has_jobs(session, revision.id, _PREPARATION, jobs.LIVE):
                    raise Waiting("its domains are being counted")
                require_shards(revision)
            work = work_of(run, launch.mixture, document, launcher, self.settings, held.number)
            exports = (
                exports_of(session, launcher, launch.mixture, document)
                if isinstance(launcher, Commanded)
                else {}
            )
            results = results_of(launcher, launch, document)
            return About(run.id, launcher, work, document, exports, results, job.cancel_requested)


def begin(database: Database) -> None:
    """A submission for every queued launch; its job is held from then on, by nobody's lease."""
    queued = claimable([jobs.SCHEDULED_RUN])
    if not is_any(database, queued):
        return
    with database.write() as session:
        for job in session.scalars(queued.limit(BATCH).with_for_update(skip_locked=True)).all():
            launch = session.get_one(Launch, job.owner)
            last = session.scalar(select(func.max(Submission.number)).where(Submission.job_id == job.id))
            number, launcher = (last or 0) + 1, LaunchDocument.of(launch).launcher
            name = submission_name(launch.id, number)
            session.add(Submission(job_id=job.id, number=number, launcher=launcher, name=name))
            job.state, job.worker, job.progress = jobs.CLAIMED, launcher, None
            job.attempt += 1
            job.started_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]


def take(database: Database, away: Collection[str] = ()) -> Held | None:
    """The submission that has been due for longest, of a launcher that answers; None where none is due."""
    due = select(Submission).where(
        Submission.state != ENDED, Submission.due_at <= database_now(), Submission.launcher.not_in(away)
    )
    with database.read() as session:  # before SQLite's only writer is kept: mostly there is nothing to do
        if session.scalars(due.limit(1)).first() is None:
            return None
    with database.write() as session:
        row = session.scalars(
            due.order_by(Submission.due_at).limit(1).with_for_update(skip_locked=True)
        ).first()
        if row is None:
            return None
        row.token = token = secrets.token_hex(16)
        row.due_at = database_now() + LEASE_SECONDS  # pyright: ignore[reportAttributeAccessIssue]
        return Held(
            row.id, token, row.job_id, row.number, row.launcher, row.name, row.external_id, row.reported
        )


def note(
    database: Database,
    held: Held,
    seconds: float,
    standing: Standing,
    external_id: str | None = None,
    measured: Measured | None = None,
) -> None:
    """Write how a submission is, and that it is looked at again in so many ``seconds``."""
    with _owned(database, held) as (submission, job):
        if external_id is not None:
            if submission.submitted_at is None:
                submission.submitted_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
            submission.external_id = external_id
            if standing.state == RUNNING != submission.state:
                job.started_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
            submission.state = standing.state
            job.state = jobs.RUNNING if standing.state == RUNNING else jobs.CLAIMED
        submission.said = standing.said or submission.said
        submission.due_at = database_now() + seconds  # pyright: ignore[reportAttributeAccessIssue]
        if measured is not None:
            job.progress = dict(standing.progress or {}) or measured.progress or job.progress
            keep_metrics(session_of(job), measured.run_id, measured.metrics)


def close(
    database: Database,
    held: Held,
    outcome: Outcome,
    standing: Standing | None = None,
    measured: Measured | None = None,
) -> None:
    """Write the end of a submission, and of its job, unless that is to be tried again."""
    with _owned(database, held) as (submission, job):
        submission.state, submission.exit_status = ENDED, outcome.exit_status
        submission.said = submission.said if standing is None else standing.said
        submission.ended_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
        session = session_of(job)
        if measured is not None:
            keep_metrics(session, measured.run_id, measured.metrics)
        if outcome.failure is not None:
            job.lease_expires_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
            session.flush()
            retry_or_end(job, outcome.failure)
        elif outcome.result is None:
            end(job, jobs.CANCELLED)
        else:
            is_ours = "tokens" in outcome.result
            kind_named(jobs.FULL_RUN if is_ours else jobs.EXTERNAL_RUN).store(session, job, outcome.result)
            end(job, jobs.SUCCEEDED)
            session.flush()
            if is_ours:
                jobs.note_tokens(session, job, outcome.result["tokens"])
        session.flush()
        settle(session, job)
        log.info("%s: ended, %s", held.name, job.state)


def session_of(job: Job) -> Session:
    """The session its row is written in."""
    session = object_session(job)
    assert session is not None
    return session


@contextmanager
def _owned(database: Database, held: Held) -> Iterator[tuple[Submission, Job]]:
    """The rows of what is held, to be written; raises `NotHeld` where somebody else has it by now."""
    mine = (
        select(Submission).where(Submission.id == held.id, Submission.token == held.token).with_for_update()
    )
    with database.write() as session:
        submission = session.scalars(mine).first()
        if submission is None:
            raise NotHeld(f"{held.name} is in other hands")
        job = session.scalars(select(Job).where(Job.id == held.job_id).with_for_update()).one()
        yield submission, job
