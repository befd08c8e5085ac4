"""Describing swarms and runs."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session, defer

from service.database import jobs
from service.database.jobs import of_run
from service.database.models import DomainSet, Job, Launch, Metric, Optimization, Revision, Run, Swarm
from service.database.types import big_integer
from service.errors import Invalid, NotFound
from service.optimizations.schemas import RunCounts
from service.schemas import failure_of
from service.swarms.schemas import MetricView, RunProgress, RunSummary, RunView, SwarmView


def swarm_with_id(session: Session, swarm_id: str) -> Swarm:
    """The swarm; raises NotFound."""
    row = session.get(Swarm, swarm_id)
    if row is None:
        raise NotFound("swarm", swarm_id)
    return row


def describe_swarm(session: Session, swarm: Swarm) -> SwarmView:
    """The swarm with its runs counted by state."""
    return describe_swarms(session, [swarm])[0]


def _view(swarm: Swarm, states: Counter[str], name: str, number: int) -> SwarmView:
    return SwarmView.model_validate(
        {
            "id": swarm.id,
            "optimization_id": swarm.optimization_id,
            "domain_set": name,
            "revision": number,
            "runs": RunCounts(
                total=states.total(),
                succeeded=states[jobs.SUCCEEDED],
                failed=states[jobs.FAILED],
                running=states[jobs.CLAIMED] + states[jobs.RUNNING],
                queued=states[jobs.QUEUED],
                cancelled=states[jobs.CANCELLED],
            ),
            "created_at": swarm.created_at,
        }
    )


def describe_swarms(session: Session, swarms: Sequence[Swarm]) -> list[SwarmView]:
    """Swarms with their runs counted by state, however many in two queries."""
    counted = (
        select(Job.owner, Job.state, func.count())
        .where(Job.owner.in_([swarm.optimization_id for swarm in swarms]), Job.kind == jobs.PROXY_RUN)
        .group_by(Job.owner, Job.state)
    )
    states: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for owner, state, number in session.execute(counted):
        states[owner][state] = number
    named = (
        select(Revision.id, DomainSet.name, Revision.number)
        .join(DomainSet, DomainSet.id == Revision.domain_set_id)
        .where(Revision.id.in_({swarm.revision_id for swarm in swarms}))
    )
    names = {revision: (name, number) for revision, name, number in session.execute(named)}
    return [_view(swarm, states[swarm.optimization_id], *names[swarm.revision_id]) for swarm in swarms]


RunRow = tuple[Run, Job, int]
"""A run with its job and the tokens it was asked to train."""


def _rows() -> Select[Run, Job, int]:
    asked = func.coalesce(
        Run.tokens,
        big_integer(Optimization.settings["proxy"]["tokens"]),
        big_integer(Launch.settings["tokens"]),
    )
    return (
        select(Run, Job, asked)
        .join(Job, of_run())
        .outerjoin(Swarm, Swarm.id == Run.swarm_id)
        .outerjoin(Optimization, Optimization.id == Swarm.optimization_id)
        .outerjoin(Launch, Launch.id == Run.launch_id)
    )


def run_page(
    session: Session, swarm: str | None, after: str | None, limit: int
) -> tuple[Sequence[RunRow], str | None]:
    """Runs by (position, id), those of one swarm if named; keyset, so it stays put."""
    page = select(Run.id)
    if swarm is not None:
        page = page.where(Run.swarm_id == swarm_with_id(session, swarm).id)
    if after is not None:
        page = page.where(_behind(after))
    # First which runs, from an index alone, then what there is about them: in one query PostgreSQL joins all of them.
    ids = session.scalars(page.order_by(Run.position, Run.id).limit(limit + 1)).all()
    query = _rows().where(Run.id.in_(ids)).options(defer(Run.weights))
    found = session.execute(query.order_by(Run.position, Run.id))
    rows = [(run, job, asked) for run, job, asked in found]
    more = len(rows) > limit
    rows = rows[:limit]
    return rows, (f"{rows[-1][0].position}.{rows[-1][0].id}" if more else None)


def _behind(after: str) -> ColumnElement[bool]:
    position, _, run_id = after.partition(".")
    if not position.isascii() or not position.isdigit() or len(position) > 9:
        raise Invalid("bad_cursor", f"{after!r} is not the `next` of a page of runs.", "after")
    return or_(Run.position > int(position), and_(Run.position == int(position), Run.id > run_id))


def run_with_id(session: Session, run_id: str) -> RunRow:
    """The run and the job that trains it; raises NotFound."""
    row = session.execute(_rows().where(Run.id == run_id)).first()
    if row is None:
        raise NotFound("run", run_id)
    run, job, asked = row
    return run, job, asked


def summarize_run(run: Run, job: Job, requested_tokens: int) -> RunSummary:
    """A run in a list."""
    return RunSummary.model_validate(_summary(run, job, requested_tokens))


def describe_run(run: Run, job: Job, requested_tokens: int) -> RunView:
    """A run with its requested and its realised weights, both by domain name."""
    result = run.result or {}
    realised = result.get("realised_tokens")
    return RunView.model_validate(
        {
            **_summary(run, job, requested_tokens),
            "weights": run.weights,
            "realised_tokens": realised,
            "realised_weights": realised_weights(realised),
            "parameters": result.get("parameters"),
            "non_embedding_parameters": result.get("non_embedding_parameters"),
        }
    )


def realised_weights(realised_tokens: Mapping[str, int] | None) -> dict[str, float] | None:
    """Counted tokens per domain as fractions."""
    if not realised_tokens:
        return None
    total = sum(realised_tokens.values())
    return {name: tokens / total for name, tokens in realised_tokens.items()}


def _summary(run: Run, job: Job, requested_tokens: int) -> dict[str, Any]:
    result = run.result or {}
    progress = job.progress if job.state in jobs.HELD else None
    return {
        "id": run.id,
        "swarm_id": run.swarm_id,
        "launch_id": run.launch_id,
        "index": run.position,
        "round": run.round,
        "state": job.state,
        "attempt": job.attempt,
        "seed": run.seed,
        "metrics": {**(result.get("final") or {}), **(result.get("further") or {})},
        "requested_tokens": requested_tokens,
        "tokens": result.get("tokens"),
        "seconds": result.get("seconds"),
        "progress": RunProgress.model_validate(progress) if progress else None,
        "failure": failure_of(job.failure_code, job.failure_detail),
        "created_at": run.created_at,
    }


def metric_page(
    session: Session, run_id: str, after: str | None, limit: int
) -> tuple[list[MetricView], str | None]:
    """Evaluations of a run by (step, task), behind the cursor ``<step>.<task>``."""
    query = select(Metric).where(Metric.run_id == run_with_id(session, run_id)[0].id)
    if after is not None:
        step, _, task = after.partition(".")
        if not step.isascii() or not step.isdigit() or len(step) > 9:
            raise Invalid("bad_cursor", f"{after!r} is not the `next` of a page of metrics.", "after")
        query = query.where(or_(Metric.step > int(step), and_(Metric.step == int(step), Metric.task > task)))
    rows = session.scalars(query.order_by(Metric.step, Metric.task).limit(limit + 1)).all()
    views = [MetricView.model_validate(row, from_attributes=True) for row in rows[:limit]]
    following = f"{views[-1].step}.{views[-1].task}" if len(rows) > limit else None
    return views, following
