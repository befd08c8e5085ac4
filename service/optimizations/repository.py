"""Queries about optimizations, their jobs and results. Nothing here commits."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, load_only, selectinload

from service.database import jobs
from service.database.models import Job, MixtureRow, Optimization, Revision, Run, Swarm
from service.database.types import big_integer
from service.errors import NotFound


def optimization_with_id(session: Session, optimization_id: str) -> Optimization:
    """The optimization with its revision and domains; raises NotFound."""
    row = session.get(
        Optimization,
        optimization_id,
        options=[
            joinedload(Optimization.revision).joinedload(Revision.domain_set),
            joinedload(Optimization.revision).options(selectinload(Revision.domains)),
        ],
    )
    if row is None:
        raise NotFound("optimization", optimization_id)
    return row


def swarm_id_of(session: Session, optimization_id: str) -> str | None:
    """The optimization's swarm, once it is sampled."""
    return session.scalar(select(Swarm.id).where(Swarm.optimization_id == optimization_id))


def mixtures_of(session: Session, optimization_id: str) -> dict[str, str]:
    """Kind of mixture -> id, for the mixtures the optimization made."""
    query = select(MixtureRow.kind, MixtureRow.id).where(MixtureRow.optimization_id == optimization_id)
    return dict(session.execute(query).all())


def stage_jobs(session: Session, optimization_id: str) -> Sequence[Job]:
    """The optimization's jobs but for its proxy runs', which may be thousands: see `trained_runs`."""
    query = select(Job).where(Job.owner == optimization_id, Job.kind != jobs.PROXY_RUN)
    return session.scalars(query.order_by(Job.priority, Job.position, Job.created_at)).all()


def trained_runs(
    session: Session, optimization_id: str
) -> Sequence[tuple[Job, int | None, int | None, float | None]]:
    """Every proxy-run job of the optimization with its run's own tokens, and its tokens and seconds once finished."""
    columns = load_only(
        Job.kind,
        Job.subject,
        Job.state,
        Job.progress,
        Job.started_at,
        Job.finished_at,
        Job.busy_seconds,
        Job.failure_code,
        Job.failure_detail,
    )
    query = (
        select(Job, Run.tokens, big_integer(Run.result["tokens"]), Run.result["seconds"].as_float())
        .join(Run, Run.id == Job.subject)
        .where(Job.owner == optimization_id, Job.kind == jobs.PROXY_RUN)
        .order_by(Job.position)
        .options(columns)
    )
    return [(job, asked, tokens, seconds) for job, asked, tokens, seconds in session.execute(query)]
