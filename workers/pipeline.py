"""From one stage of an optimization to the next: which jobs it needs now, and whether it has ended.

``advance`` looks at what is stored and does what is missing, so it may be called at any time, by anybody, twice. It
is called in the transaction that ends a job and again at every tick; a call that was missed heals at the next one.

Nobody waits for an optimization's row while holding a job's: who finds it locked leaves it to the one that has it, or
to the next tick. So the two kinds of row cannot deadlock.
"""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.swarm.catalogue import SAMPLERS
from store import jobs
from store.clock import database_now
from store.engine import Database
from store.revisions.preparation import preparation_failure, preparation_state
from store.tables import Job, Optimization
from workers.claims.reaper import Reaped, reap

_OPTIMIZATION_KINDS = (jobs.SAMPLE_SWARM, jobs.PROXY_RUN, jobs.SOLVE)


def tick(database: Database) -> list[Reaped]:
    """Take back expired leases and advance every live optimization; answers what was taken back."""
    reaped = reap(database, settle)
    with database.read() as session:
        live = session.scalars(select(Optimization.id).where(Optimization.state.in_(jobs.LIVE))).all()
    for optimization_id in live:
        with database.write() as session:
            advance(session, optimization_id)
    return reaped


def settle(session: Session, job: Job) -> None:
    """In the transaction that ended ``job``: go on with what waited for it."""
    if job.kind in _OPTIMIZATION_KINDS:
        advance(session, job.owner)
    elif job.kind in (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN):
        waiting = select(Optimization.id).where(
            Optimization.revision_id == job.owner, Optimization.state.in_(jobs.LIVE)
        )
        for optimization_id in session.scalars(waiting).all():
            advance(session, optimization_id)


def advance(session: Session, optimization_id: str) -> None:
    """Queue the next stage's jobs, or end the optimization. Does nothing while somebody else is at it."""
    locked = select(Optimization).where(Optimization.id == optimization_id).with_for_update(skip_locked=True)
    optimization = session.scalars(locked).first()
    if optimization is None:
        return
    if optimization.state in jobs.ENDED:
        # A sampling that finished while it was being cancelled has queued its runs after the cancellation.
        jobs.cancel_jobs(session, optimization.id)
        return
    if not _is_prepared(session, optimization):
        return
    own = _jobs(session, optimization.id)
    if any(job.state == jobs.CANCELLED for job in own):
        # Retried before whoever held the job had noticed that it was cancelled.
        jobs.requeue_jobs(session, optimization.id, [jobs.CANCELLED])
        return
    runs = [job for job in own if job.kind == jobs.PROXY_RUN]
    for number in range(len(optimization.settings["rounds"])):
        # A round is sampled when every run of the rounds before has ended, and enough of them can be learned from.
        if not _is_done(session, optimization, own, jobs.SAMPLE_SWARM, number):
            return
        if not _has_evidence(optimization, runs, number):
            return
    if _is_done(session, optimization, own, jobs.SOLVE):
        _end(optimization, jobs.SUCCEEDED)


def _jobs(session: Session, owner: str) -> Sequence[Job]:
    return session.scalars(select(Job).where(Job.owner == owner)).all()


def _is_prepared(session: Session, optimization: Optimization) -> bool:
    revision = optimization.revision
    work = _jobs(session, revision.id)
    state = preparation_state(revision, work)
    if state in (jobs.FAILED, jobs.CANCELLED):
        code, detail = preparation_failure(revision, work) or (state, "The preparation was cancelled.")
        _end(optimization, jobs.FAILED, code, detail)
    return state == jobs.SUCCEEDED


def _is_done(
    session: Session, optimization: Optimization, own: Sequence[Job], kind: str, number: int = 0
) -> bool:
    """Whether the optimization's job of ``kind`` in a round has succeeded; queued when there is none yet."""
    work = [job for job in own if job.kind == kind and job.position == number]
    if not work:
        # One job a round: the subject, which is unique, names the round from the second on.
        subject = f"{optimization.id}.{number}" if number else optimization.id
        session.add(jobs.new_job(kind, subject, optimization.id, number))
        if optimization.state == jobs.QUEUED:
            optimization.state = jobs.RUNNING
            optimization.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
        return False
    (job,) = work
    if job.state == jobs.FAILED:
        _end(optimization, jobs.FAILED, job.failure_code, job.failure_detail)
    elif optimization.state == jobs.QUEUED:
        optimization.state = jobs.RUNNING
    return job.state == jobs.SUCCEEDED


def _has_evidence(optimization: Optimization, runs: list[Job], number: int) -> bool:
    """Whether every run up to a round has ended and enough succeeded to go on; lost runs do not stop the others."""
    if any(job.state in jobs.LIVE for job in runs):
        return False
    settings = optimization.settings
    succeeded = sum(job.state == jobs.SUCCEEDED for job in runs)
    needed, later = int(settings["minimum_runs"]), sum(settings["rounds"][number + 1 :])
    # Only a sampler that learns fits the regression before the last round.
    if succeeded + (0 if SAMPLERS[settings["recipe"]["sampler"]].learns else later) >= needed:
        return True
    lost = next((job for job in runs if job.failure_code), None)
    older = len((settings.get("reuse") or {}).get("runs", ()))
    beside = f" beside {older} older ones" if older else ""
    still = f", {later} more being still to come" if later else ""
    reason = f"; the first lost one failed with {lost.failure_code}: {lost.failure_detail}" if lost else ""
    _end(
        optimization,
        jobs.FAILED,
        "too_few_runs",
        f"{succeeded} of {len(runs)} runs succeeded and the regression needs {needed}{beside}{still}{reason}",
    )
    return False


def _end(optimization: Optimization, state: str, code: str | None = None, detail: str | None = None) -> None:
    optimization.state = state
    optimization.failure_code = code
    optimization.failure_detail = detail
    optimization.updated_at = optimization.finished_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
