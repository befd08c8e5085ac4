"""Job kinds, states and their creation: the part of a job's life that the web process takes part in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, and_, case, func, select, update
from sqlalchemy.orm import Session, object_session

from store.tables import ATTEMPTS, Attempt, Job, Revision, Run, database_now

WAITING: Final = "waiting"
"""For the results of a run that is trained elsewhere: nobody here can do it."""
QUEUED: Final = "queued"
CLAIMED: Final = "claimed"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
HELD: Final = (CLAIMED, RUNNING)
LIVE: Final = (WAITING, QUEUED, CLAIMED, RUNNING)
ENDED: Final = (SUCCEEDED, FAILED, CANCELLED)

PREPARE_TOKENIZER: Final = "prepare_tokenizer"
PREPARE_DOMAIN: Final = "prepare_domain"
COMPARE_DOMAINS: Final = "compare_domains"
SAMPLE_SWARM: Final = "sample_swarm"
PROXY_RUN: Final = "proxy_run"
SOLVE: Final = "solve"
FULL_RUN: Final = "full_run"
EXTERNAL_RUN: Final = "external_run"
SCHEDULED_RUN: Final = "scheduled_run"
"""A launch on a scheduler: no worker does it, it is submitted and followed (`workers.follower`)."""
TOKEN_FILES: Final = "token_files"
CALLBACK: Final = "callback"
"""Tells of a launch's end; owned by the run, its subject the launch, from the second end on with a number."""

OF_LAUNCHES: Final = (FULL_RUN, EXTERNAL_RUN, SCHEDULED_RUN)
# What an accelerator is for; everything else is done on a CPU.
TRAINING: Final = (FULL_RUN, PROXY_RUN)

# Lower first: what others wait for goes before what only fills the machine.
PRIORITY: Final = {
    PREPARE_TOKENIZER: 10,
    PREPARE_DOMAIN: 20,
    COMPARE_DOMAINS: 20,
    SAMPLE_SWARM: 30,
    SOLVE: 40,
    TOKEN_FILES: 45,
    CALLBACK: 5,
    FULL_RUN: 50,
    EXTERNAL_RUN: 50,
    SCHEDULED_RUN: 50,
    PROXY_RUN: 60,
}


def new_job(kind: str, subject: str, owner: str, position: int = 0, user: str = "") -> Job:
    """A queued job of ``kind``; unique per subject, so the store refuses the same work a second time."""
    return Job(
        kind=kind, subject=subject, owner=owner, position=position, priority=PRIORITY[kind], user_name=user
    )


def of_run() -> ColumnElement[bool]:
    """Joins a run to the job that trains it.

    By kind too, for jobs are indexed by kind and subject; and by kinds that come from the run, or SQLite starts at
    the jobs and reads all of them.
    """
    alone = case((Run.launch_id.is_(None), PROXY_RUN), else_=FULL_RUN)
    by_program = case((Run.launch_id.is_(None), PROXY_RUN), else_=EXTERNAL_RUN)
    by_scheduler = case((Run.launch_id.is_(None), PROXY_RUN), else_=SCHEDULED_RUN)
    return and_(Job.kind.in_([alone, by_program, by_scheduler]), Job.subject == Run.id)


def count_jobs(session: Session, owner: str) -> dict[tuple[str, str], int]:
    """How many jobs ``owner`` has of each kind in each state: ``{(kind, state): count}``, from an index alone."""
    query = select(Job.kind, Job.state, func.count()).where(Job.owner == owner).group_by(Job.kind, Job.state)
    return {(kind, state): count for kind, state, count in session.execute(query)}


def has_jobs(session: Session, owner: str, kinds: Iterable[str], states: Iterable[str]) -> bool:
    """Whether ``owner`` has any job of these kinds in these states; however many there are, one look at an index."""
    query = select(Job.id).where(Job.owner == owner, Job.kind.in_(tuple(kinds)), Job.state.in_(tuple(states)))
    return session.execute(query.limit(1)).first() is not None


def cancel_jobs(session: Session, owner: str) -> None:
    """Cancel what nobody holds for ``owner``; ask whoever holds the rest to stop at the next heartbeat."""
    session.execute(
        update(Job)
        .where(Job.owner == owner, Job.state.in_((QUEUED, WAITING)))
        .values(state=CANCELLED, finished_at=database_now())
    )
    session.execute(update(Job).where(Job.owner == owner, Job.state.in_(HELD)).values(cancel_requested=True))


def requeue_jobs(
    session: Session, owner: str, states: Iterable[str] = (FAILED, CANCELLED), user: str | None = None
) -> int:
    """Queue again what ended in ``states`` for ``owner``, with all its attempts back; answers how many.

    It is for the ``user`` then, if one is named, or for whom it was.
    """
    # Whoever still holds a job that was asked to stop need not stop any more.
    session.execute(update(Job).where(Job.owner == owner, Job.state.in_(HELD)).values(cancel_requested=False))
    result = session.execute(
        update(Job)
        .where(Job.owner == owner, Job.state.in_(tuple(states)))
        .values(
            state=QUEUED,
            user_name=Job.user_name if user is None else user,
            attempt=0,
            max_attempts=ATTEMPTS,
            available_at=database_now(),
            cancel_requested=False,
            failure_code=None,
            failure_detail=None,
            finished_at=None,
            progress=None,
        )
    )
    return result.rowcount  # pyright: ignore[reportAttributeAccessIssue] - an UPDATE always answers a CursorResult


def give_up_results(session: Session, owner: str) -> None:
    """What waits for results of ``owner``'s runs counts with those that came, or has failed where none did."""
    waiting = update(Job).where(Job.owner == owner, Job.state == WAITING)
    measured = select(Run.id).where(Run.result.is_not(None))
    session.execute(
        waiting.where(Job.subject.in_(measured)).values(state=SUCCEEDED, finished_at=database_now())
    )
    session.execute(
        waiting.values(
            state=FAILED,
            failure_code="no_results",
            failure_detail="its results were not in when the optimization was finished",
            finished_at=database_now(),
        )
    )


def await_results(session: Session, owner: str) -> None:
    """What is queued of ``owner``'s runs is trained elsewhere: it waits for results instead of a worker."""
    session.execute(
        update(Job)
        .where(Job.owner == owner, Job.kind == PROXY_RUN, Job.state == QUEUED)
        .values(state=WAITING)
    )


# What became of each attempt at a job, one row each: jobs are queued again and forget, counters must not.

RETRIED: Final = "retried"
RELEASED: Final = "released"


def note_attempt(job: Job, outcome: str, failure_code: str | None = None, reaped: bool = False) -> None:
    """Store how the attempt that holds ``job`` ends now, in the transaction that ends it.

    ``outcome`` is the job's end state, ``retried`` or, where a worker that shuts down gives it back, ``released``.
    ``reaped`` says that the lease ran out and was taken back; such an attempt counts until its lease's end.
    """
    session = object_session(job)
    if session is None:
        raise RuntimeError(f"job {job.id} belongs to no session")
    now = database_now()
    lease_end = job.lease_expires_at
    ended = now if lease_end is None else case((now > lease_end, lease_end), else_=now)
    session.add(
        Attempt(
            job_id=job.id,
            kind=job.kind,
            number=job.attempt,
            worker=job.worker,
            outcome=outcome,
            failure_code=failure_code,
            reaped=reaped,
            seconds=ended - (now if job.started_at is None else job.started_at),
        )
    )


def note_tokens(session: Session, job: Job, tokens: int) -> None:
    """Add what the attempt that has just succeeded at ``job`` has trained."""
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job.id, Attempt.number == job.attempt, Attempt.outcome == SUCCEEDED)
        .values(tokens=tokens)
    )


# How far a revision's preparation is, from its jobs: read by the API and waited for by the workers.


def preparation_state(states: Mapping[str, int], domains: int) -> str:
    """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``.

    From how many of the preparation's jobs are in each of the ``states``, and how many domains the revision has.
    """
    for ended_badly in (FAILED, CANCELLED):
        if states.get(ended_badly):
            return ended_badly
    if not any(states.values()):
        return SUCCEEDED  # a revision without text has nothing to prepare, and any other a job from the start
    # One job for the tokenizer, one a domain, made when the tokenizer is there, and one to compare them, made with
    # the last domain's count; older versions had none.
    if states.get(SUCCEEDED, 0) > domains and not set(states) - {SUCCEEDED}:
        return SUCCEEDED
    return RUNNING if set(states) - {QUEUED} else QUEUED


def preparation_failure(revision: Revision, work: Sequence[Job]) -> tuple[str, str] | None:
    """Code and sentence of the first failed preparation job, naming the domain; None without one."""
    names = {row.id: repr(row.name) for row in revision.domains}
    for job in work:
        if job.state == FAILED and job.failure_code:
            detail = job.failure_detail or ""
            name = names.get(job.subject)
            if name is None:
                detail = f"The tokenizer: {detail}"
            elif name not in detail:
                detail = f"Domain {name}: {detail}"
            return job.failure_code, detail
    return None
