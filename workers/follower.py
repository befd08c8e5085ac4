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
from sqlalchemy.orm import object_session

from proxy_models.training.run_files import Followed
from store import jobs
from store.documents import LaunchDocument
from store.engine import Database
from store.launchers.base import Work, submission_name
from store.launchers.scheduler import (
    ENDED,
    QUEUED,
    RUNNING,
    Refused,
    Scheduler,
    SchedulerAway,
    Seen,
    Standing,
    started_by,
    submission_directory,
)
from store.launchers.work import exports_of, work_of
from store.logs import bound, first_line
from store.series import keep_metrics
from store.settings import Settings
from store.tables import Document, Job, Launch, Metric, Run, Submission, database_now
from workers.claims.claim import claimable, end, is_any, retry_or_end
from workers.claims.failures import Failure
from workers.jobs import kind_named
from workers.jobs.external_run import configured, results_of
from workers.jobs.launch_results import collect
from workers.pipeline import settle
from workers.submission import CANCELLED, Outcome, collected, handed_over, progress_of, withdrawn

log = logging.getLogger("mixwright.follower")

TICK_SECONDS = 1.0
BATCH = 100
"""Submissions begun, and looked at, in one round."""
LEASE_SECONDS = 600.0
"""Longer than all that one look asks of a scheduler may take."""
AFTER_ERROR_SECONDS = 30.0


class NotHeld(RuntimeError):
    """Somebody else looks at the submission by now: nothing was written."""


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

    launcher: Scheduler
    work: Work
    launch: LaunchDocument
    exports: Document
    results: Document
    is_cancelled: bool


def follow_submissions(database: Database, settings: Settings, stopping: threading.Event) -> None:
    """Follow what there is until ``stopping`` is set."""
    while not stopping.is_set():
        try:
            look_around(database, settings, stopping)
        except SQLAlchemyError as error:  # the store comes back, and nothing was kept here
            log.warning("submissions: %s", first_line(error))
        stopping.wait(TICK_SECONDS)


def look_around(database: Database, settings: Settings, stopping: threading.Event) -> int:
    """Begin what is queued and look once at what is due; answers how many submissions were looked at."""
    begin(database)
    away: set[str] = set()
    for number in range(BATCH):
        held = None if stopping.is_set() else take(database, away)
        if held is None:
            return number
        with bound(submission=held.name):
            try:
                _look_safely(database, settings, held)
            except SchedulerAway as error:  # nor will it answer for the others of this round
                away.add(held.launcher)
                log.warning("%s does not answer: %s", held.launcher, first_line(error))
                note(database, held, AFTER_ERROR_SECONDS, Standing(QUEUED, f"does not answer: {error}"))
            except NotHeld as error:
                log.warning("dropped: %s", error)
    return BATCH


def _look_safely(database: Database, settings: Settings, held: Held) -> None:
    """What nobody foresaw ends only what was never handed over: a launch that trains must not be lost for it."""
    try:
        look(database, settings, held)
    except (SchedulerAway, NotHeld, SQLAlchemyError):
        raise
    except Exception as error:  # the edge of the follower
        log.exception("look")
        failure = Failure.of(error)
        if held.external_id is None:
            close(database, held, Outcome(failure=failure))
        else:
            note(database, held, AFTER_ERROR_SECONDS, Standing(QUEUED, f"{failure.code}: {failure.detail}"))


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


def look(database: Database, settings: Settings, held: Held) -> None:
    """Hand it over if it was not, see how it is, and write that, or what came of it. Raises `SchedulerAway`."""
    about = _about(database, settings, held)
    begun = started_by(submission_directory(about.work))
    external_id = held.external_id if begun in (None, CANCELLED) else begun
    if external_id is None and (external_id := _begun(database, held, about)) is None:
        return
    seen = Seen(held.name, external_id, held.reported)
    standing = about.launcher.follow(seen)
    if standing is not None and standing.state != ENDED:
        if about.is_cancelled:
            about.launcher.cancel(seen)
        note(
            database,
            held,
            about.launcher.poll_seconds,
            standing,
            external_id,
            progress_of(about.work, standing),
        )
        keep_series(database, held, about.work)
        return
    outcome = collected(about.work, standing, about.is_cancelled, settings)
    if outcome.result is not None and about.work.order is None:
        outcome.result.update(collect(about.work.directory, about.results))
    close(database, held, outcome, standing)
    about.launcher.forget(seen)


def _begun(database: Database, held: Held, about: About) -> str | None:
    """The scheduler's id of a submission that was not known to be handed over; None where that ended it."""
    try:
        if about.is_cancelled:
            external_id = withdrawn(about.work) or about.launcher.find(held.name)
        else:
            external_id = handed_over(about.launcher, about.work, about.launch, about.exports)
    except (SchedulerAway, SQLAlchemyError):
        raise
    except Exception as error:  # the scheduler's refusal, or what is wrong with the launch
        refused = Failure("submission_refused", str(error), retryable=False)
        close(database, held, Outcome(failure=refused if isinstance(error, Refused) else Failure.of(error)))
        return None
    if external_id is None:
        close(database, held, Outcome())
    else:
        log.info("%s has it as %s", held.launcher, external_id)
        note(database, held, LEASE_SECONDS, Standing(QUEUED), external_id)
    return external_id


def _about(database: Database, settings: Settings, held: Held) -> About:
    launcher = configured(held.launcher, Scheduler, settings)
    with database.read() as session:
        job = session.get_one(Job, held.job_id)
        launch, run = session.get_one(Launch, job.owner), session.get_one(Run, job.subject)
        document = LaunchDocument.of(launch)
        work = work_of(run, launch.mixture, document, launcher, settings, held.number)
        exports = exports_of(session, launcher, launch.mixture, document)
        results = results_of(launcher, launch, document)
        return About(launcher, work, document, exports, results, job.cancel_requested)


def note(
    database: Database,
    held: Held,
    seconds: float,
    standing: Standing,
    external_id: str | None = None,
    progress: Document | None = None,
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
        job.progress = progress or job.progress


def close(database: Database, held: Held, outcome: Outcome, standing: Standing | None = None) -> None:
    """Write the end of a submission, and of its job, unless that is to be tried again."""
    with _owned(database, held) as (submission, job):
        submission.state, submission.exit_status = ENDED, outcome.exit_status
        submission.said = submission.said if standing is None else standing.said
        submission.ended_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
        session = object_session(job)
        assert session is not None
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


def keep_series(database: Database, held: Held, work: Work) -> None:
    """Store what the built-in trainer has measured since the last look, as it wrote that in the run's directory."""
    if work.order is None or not (measured := Followed(work.run_directory).metrics()):
        return
    with _owned(database, held) as (_, job):
        session = object_session(job)
        assert session is not None
        known = session.scalar(select(func.max(Metric.step)).where(Metric.run_id == job.subject)) or 0
        keep_metrics(session, job.subject, (one for one in measured if one["step"] >= known))


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
