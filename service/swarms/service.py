"""Describing swarms and runs."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, computed_field
from sqlalchemy import Integer, Select, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from mixing.document import from_document
from service.http.schemas import FailureView, Listing, Page, Time, Weights, failure_of, view_of
from service.optimizations.views import run_counts
from service.swarms.schemas import SwarmView
from store import jobs
from store.documents import BroughtDocument, Measurements
from store.jobs import of_run
from store.problems import Invalid, existing
from store.swarms import BROUGHT, HERE
from store.tables import DomainSet, Job, Metric, Optimization, Revision, Run, Swarm, big_integer


class RunProgress(BaseModel):
    """Tokens trained of those to train, while the run is under way.

    ``mfu`` is the share of what large products reach on its devices that a full run's training does.
    """

    done: int
    total: int
    tokens_per_second: float | None = None
    loss: float | None = None
    mfu: float | None = None

    @computed_field
    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; null before there is one."""
        return (self.total - self.done) / self.tokens_per_second if self.tokens_per_second else None


class TrainingView(BaseModel):
    """What a run and a launch tell of training.

    ``metrics`` has every task, every domain's held-out slice, and of a task with choices its other metric as
    ``<task>/accuracy`` or ``<task>/bpb``. ``tokens`` is what was trained.
    """

    id: str
    state: str
    metrics: dict[str, float]
    tokens: int | None
    seconds: float | None
    progress: RunProgress | None
    failure: FailureView | None
    created_at: Time


class ModelView(BaseModel):
    """What was trained on, and how large the model is."""

    realised_tokens: dict[str, int] | None
    parameters: int | None
    non_embedding_parameters: int | None


class RunSummary(TrainingView):
    """A run in a list.

    ``name`` is what whoever brought it calls it, null for one sampled here; ``round`` is the one it was sampled in,
    from 0; ``requested_tokens`` is what it was asked to train, null where nobody said of one trained elsewhere.
    """

    swarm_id: str | None
    launch_id: str | None
    name: str | None
    index: int
    round: int
    attempt: int
    seed: int | None
    requested_tokens: int | None


class RunView(RunSummary, ModelView):
    """One model, one mixture, one seed; ``realised_weights`` are counted tokens over their sum."""

    weights: Weights
    realised_weights: Weights | None


class MetricView(BaseModel):
    """One evaluation: a task's value (BPB, or an accuracy as a share of 1) after ``step`` steps."""

    step: int
    tokens: int
    task: str
    value: float


_SWARM = (
    select(
        Swarm.id,
        Swarm.optimization_id,
        DomainSet.name.label("domain_set"),
        Revision.number.label("revision"),
        Swarm.created_at,
        Swarm.brought,
        Optimization.settings["trained"].as_string().label("trained"),
        Optimization.settings["proxy_name"].as_string().label("proxy_name"),
        Optimization.settings["tasks"].label("tasks"),
    )
    .outerjoin(Optimization, Optimization.id == Swarm.optimization_id)
    .join(Revision, Revision.id == Swarm.revision_id)
    .join(DomainSet, DomainSet.id == Revision.domain_set_id)
)
_ONE_SWARM = _SWARM.where(Swarm.id == bindparam("id"))
_STATES = (
    select(Job.owner, Job.state, func.count())
    .where(Job.owner.in_(bindparam("owners", expanding=True)), Job.kind == jobs.PROXY_RUN)
    .group_by(Job.owner, Job.state)
)


def describe_swarm(session: Session, swarm_id: str) -> SwarmView:
    """The swarm with its runs counted by state; raises NotFound."""
    row = existing(session.execute(_ONE_SWARM, {"id": swarm_id}).first(), "swarm", swarm_id)
    return _views(session, [row])[0]


def _views(session: Session, rows: Sequence[Any]) -> list[SwarmView]:
    states: defaultdict[str, Counter[str]] = defaultdict(Counter)
    owners = [_owner(row) for row in rows]
    for owner, state, number in session.execute(_STATES, {"owners": owners}):
        states[owner][state] = number
    return [_view(row, states[_owner(row)]) for row in rows]


def _owner(row: Any) -> str:
    """Whom a swarm's jobs are for: the optimization it was sampled for, or itself where it was brought."""
    return row.optimization_id or row.id


def _view(row: Any, states: Counter[str]) -> SwarmView:
    said = from_document(BroughtDocument, row.brought or {})
    is_brought = row.optimization_id is None
    return view_of(
        SwarmView,
        row,
        name=said.name,
        trained=BROUGHT if is_brought else row.trained or HERE,
        proxy_name=said.proxy_name if is_brought else row.proxy_name,
        runs=run_counts(states),
        tasks=[task["name"] for task in row.tasks or ()],
        notes=list(said.notes),
    )


SWARMS = Listing(_SWARM, Swarm.id, _views)
"""With their runs counted by state in a second query, however many."""


_SUMMARY = (
    Run.id,
    Run.name,
    Run.swarm_id,
    Run.launch_id,
    Run.position,
    Run.round,
    Run.seed,
    Run.created_at,
    Job.state,
    Job.attempt,
    Job.progress,
    Job.failure_code,
    Job.failure_detail,
    Run.requested_tokens,
)
# Of a result in a list only what is shown is read: half of it is tokens by domain.
_SUMMARIES = (
    select(
        *_SUMMARY,
        Run.result["final"].label("final"),
        Run.result["further"].label("further"),
        big_integer(Run.result["tokens"]).label("tokens"),
        Run.result["seconds"].as_float().label("seconds"),
    )
    .join(Job, of_run())
    .where(Run.id.in_(bindparam("ids", expanding=True)))
    .order_by(Run.position, Run.id)
)
_RUNS = select(*_SUMMARY, Run.weights, Run.result).join(Job, of_run())
_ONE_RUN = _RUNS.where(Run.id == bindparam("id"))
_RUNS_FOR = (
    _RUNS.join(Swarm, Swarm.id == Run.swarm_id)
    .where(Swarm.optimization_id == bindparam("optimization"))
    .order_by(Run.position, Run.id)
)
_HAS_SWARM = select(Swarm.id).where(Swarm.id == bindparam("id"))


@cache
def _ids(is_of_swarm: bool, is_behind: bool) -> Select[*tuple[Any, ...]]:
    query = select(Run.id).order_by(Run.position, Run.id).limit(bindparam("limit"))
    if is_of_swarm:
        query = query.where(Run.swarm_id == bindparam("swarm"))
    if is_behind:
        position = bindparam("position", type_=Integer)
        query = query.where(
            or_(Run.position > position, and_(Run.position == position, Run.id > bindparam("run")))
        )
    return query


def run_page(session: Session, swarm: str | None, after: str | None, limit: int) -> Page[RunSummary]:
    """Runs by (position, id), those of one swarm if named; keyset, so it stays put."""
    if swarm is not None:
        existing(session.scalar(_HAS_SWARM, {"id": swarm}), "swarm", swarm)
    wanted: dict[str, object] = {"swarm": swarm, "limit": limit + 1}
    if after is not None:
        wanted["position"], wanted["run"] = _cursor(after, "runs")
    # First which runs, from an index alone, then what there is about them: in one query PostgreSQL joins all of them.
    ids = session.scalars(_ids(swarm is not None, after is not None), wanted).all()
    rows = session.execute(_SUMMARIES, {"ids": ids[:limit]}).all()
    following = f"{rows[-1].position}.{rows[-1].id}" if len(ids) > limit else None
    views = [
        training_view(RunSummary, row, Measurements.of(row._asdict()), index=row.position) for row in rows
    ]
    return Page(items=views, next=following)


def _cursor(after: str, what: str) -> tuple[int, str]:
    """The number and the name of a cursor ``<number>.<name>``; raises Invalid."""
    number, _, name = after.partition(".")
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise Invalid("bad_cursor", f"{after!r} is not the `next` of a page of {what}.", "after")
    return int(number), name


def run_with_id(session: Session, run_id: str) -> tuple[Run, Job]:
    """The run and the job that trains it; raises NotFound."""
    query = select(Run, Job).join(Job, of_run()).where(Run.id == run_id)
    run, job = existing(session.execute(query).first(), "run", run_id)
    return run, job


def describe_run(session: Session, run_id: str) -> RunView:
    """A run with its requested and its realised weights, both by domain name; raises NotFound."""
    row = existing(session.execute(_ONE_RUN, {"id": run_id}).first(), "run", run_id)
    return training_view(RunView, row, Measurements.of(row.result), index=row.position)


def describe_runs(session: Session, optimization_id: str) -> Iterator[RunView]:
    """Likewise every run of an optimization's swarm, in order; none where there is no such optimization."""
    for row in session.execute(_RUNS_FOR, {"optimization": optimization_id}):
        yield training_view(RunView, row, Measurements.of(row.result), index=row.position)


Shown = TypeVar("Shown", bound=TrainingView)


def training_view(kind: type[Shown], row: Any, measured: Measurements, **given: object) -> Shown:
    """The view of a row with the columns of a run and its job, and of what was measured on it."""
    return view_of(
        kind,
        row,
        measured,
        progress=row.progress or None if row.state in jobs.HELD else None,
        failure=failure_of(row.failure_code, row.failure_detail),
        **given,
    )


def metric_page(session: Session, run_id: str, after: str | None, limit: int) -> Page[MetricView]:
    """Evaluations of a run by (step, task), behind the cursor ``<step>.<task>``; raises NotFound."""
    existing(session.scalar(select(Run.id).where(Run.id == run_id)), "run", run_id)
    query = select(Metric.step, Metric.task, Metric.tokens, Metric.value).where(Metric.run_id == run_id)
    if after is not None:
        step, task = _cursor(after, "metrics")
        query = query.where(or_(Metric.step > step, and_(Metric.step == step, Metric.task > task)))
    rows = session.execute(query.order_by(Metric.step, Metric.task).limit(limit + 1)).all()
    views = [view_of(MetricView, row) for row in rows[:limit]]
    return Page(items=views, next=f"{views[-1].step}.{views[-1].task}" if len(rows) > limit else None)
