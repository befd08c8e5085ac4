"""From one stage of an optimization to the next: which jobs it needs now, and whether it has ended.

``advance`` looks at what is stored and does what is missing, so it may be called at any time, by anybody, twice. It
is called in the transaction that ends a job and again at every tick; a call that was missed heals at the next one.
Jobs are counted in the database, for an optimization may have ten thousand, and a tick that finds nothing to do only
reads: SQLite has one writer.

Nobody waits for an optimization's row while holding a job's: who finds it locked leaves it to the one that has it, or
to the next tick. So the two kinds of row cannot deadlock.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mixing.parts import SAMPLERS
from store import jobs
from store.documents import SwarmDocument
from store.engine import Database
from store.launchers.callbacks import call_back
from store.tables import DomainRow, Job, Launch, Optimization, database_now
from workers.claims.claim import reap

log = logging.getLogger("mixwright.pipeline")

_OPTIMIZATION_KINDS = (jobs.SAMPLE_SWARM, jobs.PROXY_RUN, jobs.SOLVE)
Step = Callable[[], None]
"""Something missing, to be written in the session it was noticed in."""


def tick(database: Database) -> list[Job]:
    """Take back expired leases and advance every live optimization; answers what was taken back."""
    reaped = reap(database, settle)
    for taken in reaped:
        log.warning("%s %s: lease expired, now %s", taken.kind, taken.id, taken.state)
    with database.read() as session:
        live = session.scalars(select(Optimization).where(Optimization.state.in_(jobs.LIVE))).all()
        due = [optimization.id for optimization in live if _next_step(session, optimization) is not None]
    for optimization_id in due:
        with database.write() as session:
            advance(session, optimization_id)
    return reaped


def settle(session: Session, job: Job) -> None:
    """In the transaction that ended ``job``: go on with what waited for it."""
    if job.kind in _OPTIMIZATION_KINDS:
        advance(session, job.owner)
    elif job.kind in (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN, jobs.COMPARE_DOMAINS):
        waiting = select(Optimization.id).where(
            Optimization.revision_id == job.owner, Optimization.state.in_(jobs.LIVE)
        )
        for optimization_id in session.scalars(waiting).all():
            advance(session, optimization_id)
    elif job.kind in jobs.OF_LAUNCHES and job.state in jobs.ENDED:
        call_back(session, session.get_one(Launch, job.owner), job.user_name)


def advance(session: Session, optimization_id: str) -> None:
    """Queue the next stage's jobs, or end the optimization. Does nothing while somebody else is at it."""
    locked = select(Optimization).where(Optimization.id == optimization_id).with_for_update(skip_locked=True)
    optimization = session.scalars(locked).first()
    if optimization is None:
        return
    if optimization.state in jobs.ENDED:
        # A sampling that finished while it was being cancelled has queued its runs after the cancellation.
        jobs.cancel_jobs(session, optimization.id)
    while (step := _next_step(session, optimization)) is not None:
        step()
        session.flush()


def _next_step(session: Session, optimization: Optimization) -> Step | None:
    """What is to be written next; None when all there is to do is queued, under way or done. Only reads."""
    if optimization.state in jobs.ENDED:
        return None
    prepared = _preparation(session, optimization.revision_id)
    if prepared in (jobs.FAILED, jobs.CANCELLED):
        return lambda: _end_unprepared(session, optimization, prepared)
    if prepared != jobs.SUCCEEDED:
        return None
    if jobs.has_jobs(session, optimization.id, _OPTIMIZATION_KINDS, [jobs.CANCELLED]):
        # Retried before whoever held the job had noticed that it was cancelled.
        return lambda: _requeue_cancelled(session, optimization)
    if optimization.state == jobs.RUNNING and jobs.has_jobs(
        session, optimization.id, [jobs.PROXY_RUN], jobs.LIVE
    ):
        return None  # as after nearly every finished run: nothing is counted
    counts = jobs.count_jobs(session, optimization.id)
    if counts and optimization.state == jobs.QUEUED:
        return lambda: _start(optimization)
    return _next_stage(session, optimization, counts)


def _preparation(session: Session, revision_id: str) -> str:
    """The state of a revision's preparation."""
    states: Counter[str] = Counter()
    for (_, state), count in jobs.count_jobs(session, revision_id).items():
        states[state] += count
    domains = session.scalar(select(func.count()).where(DomainRow.revision_id == revision_id)) or 0
    return jobs.preparation_state(states, domains)


def _end_unprepared(session: Session, optimization: Optimization, state: str) -> None:
    revision = optimization.revision
    failed = session.scalars(select(Job).where(Job.owner == revision.id, Job.state == jobs.FAILED)).all()
    code, detail = jobs.preparation_failure(revision, failed) or (state, "The preparation was cancelled.")
    _end(optimization, jobs.FAILED, code, detail)


def _next_stage(
    session: Session, optimization: Optimization, counts: Mapping[tuple[str, str], int]
) -> Step | None:
    """The step when no run is under way: the next round, the solving, or the end."""
    rows = session.scalars(
        select(Job).where(Job.owner == optimization.id, Job.kind.in_((jobs.SAMPLE_SWARM, jobs.SOLVE)))
    )
    stages = {(job.kind, job.position): job for job in rows}
    document = SwarmDocument.of(optimization)
    rounds = [number for number, runs in enumerate(document.all_rounds) if runs]
    # A round is sampled when every run of the rounds before has ended, and enough of them can be learned from.
    for kind, number in [
        *((jobs.SAMPLE_SWARM, number) for number in rounds),
        (jobs.SOLVE, document.extensions),
    ]:
        job = stages.get((kind, number))
        if job is None:
            return lambda: _queue(session, optimization, kind, number)
        if job.state == jobs.FAILED:
            return lambda: _end(optimization, jobs.FAILED, job.failure_code, job.failure_detail)
        if job.state != jobs.SUCCEEDED:
            return None
        is_swarm = kind == jobs.SAMPLE_SWARM and number < len(document.rounds)
        if is_swarm and (lack := _lack_of_runs(session, optimization, counts, number)):
            return lambda: _end(optimization, jobs.FAILED, "too_few_runs", lack)
    return lambda: _end(optimization, jobs.SUCCEEDED)


def _lack_of_runs(
    session: Session, optimization: Optimization, counts: Mapping[tuple[str, str], int], number: int
) -> str | None:
    """Why too few runs up to a round succeeded to go on; None where there are enough without the lost ones."""
    document = SwarmDocument.of(optimization)
    succeeded = counts.get((jobs.PROXY_RUN, jobs.SUCCEEDED), 0)
    needed, later = document.minimum_runs, sum(document.rounds[number + 1 :])
    # Only a sampler that learns fits the regression before the last round.
    if succeeded + (0 if SAMPLERS[optimization.settings["recipe"]["sampler"]].learns else later) >= needed:
        return None
    runs = sum(count for (kind, _), count in counts.items() if kind == jobs.PROXY_RUN)
    lost = session.scalars(
        select(Job)
        .where(Job.owner == optimization.id, Job.kind == jobs.PROXY_RUN, Job.state == jobs.FAILED)
        .order_by(Job.position)
        .limit(1)
    ).first()
    older = 0 if document.reuse is None else len(document.reuse.runs)
    beside = f" beside {older} older ones" if older else ""
    still = f", {later} more being still to come" if later else ""
    reason = f"; the first lost one failed with {lost.failure_code}: {lost.failure_detail}" if lost else ""
    return f"{succeeded} of {runs} runs succeeded and the regression needs {needed}{beside}{still}{reason}"


def _requeue_cancelled(session: Session, optimization: Optimization) -> None:
    jobs.requeue_jobs(session, optimization.id, [jobs.CANCELLED])
    if SwarmDocument.of(optimization).is_elsewhere:
        jobs.await_results(session, optimization.id)


def _queue(session: Session, optimization: Optimization, kind: str, number: int) -> None:
    # One job a round: the subject, which is unique, names the round from the second on.
    subject = f"{optimization.id}.{number}" if number else optimization.id
    session.add(jobs.new_job(kind, subject, optimization.id, number, optimization.user_name))
    if optimization.state == jobs.QUEUED:
        _start(optimization)


def _start(optimization: Optimization) -> None:
    optimization.state = jobs.RUNNING
    optimization.updated_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]


def _end(optimization: Optimization, state: str, code: str | None = None, detail: str | None = None) -> None:
    optimization.state = state
    optimization.failure_code = code
    optimization.failure_detail = detail
    optimization.updated_at = optimization.finished_at = database_now()  # pyright: ignore[reportAttributeAccessIssue]
