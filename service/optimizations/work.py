"""The jobs behind an optimization's stages, counted by the database: a swarm may have thousands."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, func, or_, select
from sqlalchemy.orm import Session

from store import jobs
from store.clock import database_now
from store.tables import Job, Optimization, Run
from store.types import big_integer

Document = Mapping[str, Any]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class StageWork:
    """One stage: jobs by state, seconds workers spent on them, and from when to when (now, while one is under way).

    ``spans`` are of each job, or one around all of them.
    """

    states: Counter[str]
    is_started: bool
    spans: Sequence[Span]
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class HeldRun:
    """A run under way: what its worker last said, and how many jobs share that worker."""

    progress: Document
    shared_by: int


@dataclass(frozen=True, slots=True)
class Training:
    """The proxy runs: ``asked`` is (state, its own tokens or None, how many); tokens and seconds of finished ones."""

    stage: StageWork
    asked: Sequence[tuple[str, int | None, int]]
    finished_tokens: int
    finished_seconds: float
    held: Sequence[HeldRun]
    lost: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Work:
    """Every stage; ``now`` is the database's."""

    now: float
    prepare: StageWork
    sample: StageWork
    train: Training
    solve: StageWork


def work_of(session: Session, row: Optimization) -> Work:
    """What there is to do for the optimization and what is done, in two queries and one for each of held and lost."""
    found = session.execute(_FEW, {"owners": [row.id, row.revision_id]}).all()
    now = max(
        (job.now for job in found), default=0.0
    )  # the database's: the jobs' times are by the same clock
    return Work(
        now=now,
        prepare=_stage((job for job in found if job.owner == row.revision_id), now),
        sample=_stage((job for job in found if job.kind == jobs.SAMPLE_SWARM), now),
        train=_training(session, row.id, now),
        solve=_stage((job for job in found if job.kind == jobs.SOLVE), now),
    )


_IS_SPAN = and_(Job.started_at.is_not(None), or_(Job.finished_at.is_not(None), Job.state.in_(jobs.LIVE)))
_FEW = select(
    Job.owner,
    Job.kind,
    Job.state,
    Job.started_at,
    Job.finished_at,
    Job.busy_seconds,
    database_now().label("now"),
).where(Job.owner.in_(bindparam("owners", expanding=True)), Job.kind != jobs.PROXY_RUN)
_TOKENS = big_integer(Run.result["tokens"])
_GROUPS = (
    select(
        Job.state,
        Run.tokens,
        func.count().label("number"),
        func.sum(Job.busy_seconds).label("busy_seconds"),
        func.count(Job.started_at).label("started"),
        func.min(case((_IS_SPAN, Job.started_at))).label("first_start"),
        func.max(case((_IS_SPAN, Job.finished_at))).label("last_end"),
        func.count(case((and_(_IS_SPAN, Job.finished_at.is_(None)), 1))).label("open"),
        func.sum(_TOKENS).label("finished_tokens"),
        func.sum(case((_TOKENS > 0, Run.result["seconds"].as_float()))).label("finished_seconds"),
    )
    .join(Run, Run.id == Job.subject)
    .where(Job.owner == bindparam("owner"), Job.kind == jobs.PROXY_RUN)
    .group_by(Job.state, Run.tokens)
)
_HELD = select(Job.progress, Job.shared_by).where(
    Job.owner == bindparam("owner"), Job.kind == jobs.PROXY_RUN, Job.state.in_(jobs.HELD)
)
_LOST = (
    select(Job.subject, Job.failure_code, Job.failure_detail)
    .where(Job.owner == bindparam("owner"), Job.kind == jobs.PROXY_RUN, Job.state == jobs.FAILED)
    .order_by(Job.position)
)


def _stage(found: Iterable[Any], now: float) -> StageWork:
    rows = list(found)
    return StageWork(
        states=Counter(job.state for job in rows),
        is_started=any(job.started_at is not None for job in rows),
        spans=[
            (job.started_at, now if job.finished_at is None else job.finished_at)
            for job in rows
            if job.started_at is not None and (job.finished_at is not None or job.state in jobs.LIVE)
        ],
        busy_seconds=sum(job.busy_seconds for job in rows),
    )


def _training(session: Session, optimization_id: str, now: float) -> Training:
    owner = {"owner": optimization_id}
    groups = session.execute(_GROUPS, owner).all()
    states: Counter[str] = Counter()
    for group in groups:
        states[group.state] += group.number
    starts = [group.first_start for group in groups if group.first_start is not None]
    ends = [now if group.open else group.last_end for group in groups if group.first_start is not None]
    held, lost = any(states[state] for state in jobs.HELD), states[jobs.FAILED]
    return Training(
        stage=StageWork(
            states,
            is_started=any(group.started for group in groups),
            spans=[(min(starts), max(ends))] if starts else [],
            busy_seconds=sum(group.busy_seconds for group in groups),
        ),
        asked=[(group.state, group.tokens, group.number) for group in groups],
        finished_tokens=sum(int(group.finished_tokens or 0) for group in groups),
        finished_seconds=sum(group.finished_seconds or 0.0 for group in groups),
        held=[HeldRun(one.progress or {}, one.shared_by) for one in session.execute(_HELD, owner)]
        if held
        else [],
        lost=[
            (one.subject, f"{one.failure_code}: {one.failure_detail}")
            for one in session.execute(_LOST, owner)
        ]
        if lost
        else [],
    )
