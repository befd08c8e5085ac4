"""The runs of an optimization as a table that sorts, filters and has pages, and a page for each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from service.dashboard.charts import CURVE_POINTS, curves_of
from service.dashboard.session import PageRoute
from service.dashboard.templating import page
from service.http.routes import DatabaseDependency, slow
from service.launches.comparison import objective_bpb, objective_weights
from service.launches.metrics import thinned
from service.optimizations.service import optimization_with_id
from service.swarms.service import RunView, describe_run
from store.jobs import LIVE, of_run
from store.swarms import HERE
from store.tables import DomainSet, Job, Optimization, Revision, Run, Swarm, big_integer

router = APIRouter(route_class=PageRoute, include_in_schema=False)
ROWS = 100
"""Runs of one page of the table."""
MOST_WEIGHTS = 600
"""Domains of a run's page."""
Sort = Literal["index", "-index", "objective", "-objective", "seconds", "-seconds", "tokens", "-tokens"]
State = Literal["", "succeeded", "failed", "cancelled", "running", "queued", "waiting"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the table has it; ``objective`` is None before it was measured."""

    id: str
    index: int
    called: str
    state: str
    attempt: int
    failure: str | None
    tokens: int | None
    seconds: float | None
    objective: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the address of a table asks for."""

    sort: str = "index"
    state: str = ""
    q: str = ""
    page: int = 1

    def link(self, **other: str | int) -> str:
        """The address of the table that differs in this; what is as usual is left out."""
        asked = {"sort": self.sort, "state": self.state, "q": self.q, "page": 1, **other}
        usual = {"sort": "index", "state": "", "q": "", "page": 1}
        return "?" + urlencode({name: value for name, value in asked.items() if value != usual[name]})

    def turned(self, column: str) -> str:
        """The address of the table sorted by a column, the other way round where it is already."""
        return self.link(sort=f"-{column}" if self.sort == column else column)


def arranged(rows: Sequence[RunRow], asked: Asked) -> list[RunRow]:
    """The rows that are asked for, in their order; what a row has no number for comes last either way."""
    words = asked.q.strip().casefold()
    kept = [
        row
        for row in rows
        if (not asked.state or row.state == asked.state)
        and (not words or words in row.called.casefold() or words == row.id)
    ]
    column, is_down = asked.sort.lstrip("-"), asked.sort.startswith("-")

    def key(row: RunRow) -> tuple[bool, float, int]:
        value = getattr(row, column)
        return (value is None, (-value if is_down else value) if value is not None else 0.0, row.index)

    return sorted(kept, key=key)


def best_of(rows: Sequence[RunRow]) -> RunRow | None:
    """The run with the lowest objective, the first of equals; None before one is measured."""
    measured = [row for row in rows if row.objective is not None]
    return min(measured, key=lambda row: (row.objective, row.index), default=None)


_ROWS = (
    select(
        Run.id,
        Run.position,
        Run.name,
        Job.state,
        Job.attempt,
        Job.failure_code,
        Run.result["final"].label("final"),
        big_integer(Run.result["tokens"]).label("tokens"),
        Run.result["seconds"].as_float().label("seconds"),
    )
    .join(Job, of_run())
    .join(Swarm, Swarm.id == Run.swarm_id)
    .order_by(Run.position, Run.id)
)


def _row(row: Any, settings: dict[str, Any]) -> RunRow:
    return RunRow(
        id=row.id,
        index=row.position,
        called=row.name or f"run {row.position}",
        state="running" if row.state == "claimed" else row.state,
        attempt=row.attempt,
        failure=row.failure_code,
        tokens=row.tokens,
        seconds=row.seconds,
        objective=objective_bpb(row.final, settings) if row.final else None,
    )


@router.get("/optimizations/{optimization_id}/runs")
@slow
def runs(
    optimization_id: str,
    database: DatabaseDependency,
    sort: Sort = "index",
    state: State = "",
    q: Annotated[str, Query(max_length=200)] = "",
    page_number: Annotated[int, Query(alias="page", ge=1, le=10**6)] = 1,
) -> Response:
    """Every run of an optimization's swarm, a page of them in the order asked for."""
    asked = Asked(sort=sort, state=state, q=q, page=page_number)
    with database.read() as store:
        optimization = optimization_with_id(store, optimization_id)
        settings = optimization.settings
        of = select(DomainSet.name).join(Revision).where(Revision.id == optimization.revision_id)
        domain_set = store.scalars(of).one()
        found = store.execute(_ROWS.where(Swarm.optimization_id == optimization_id)).all()
        rows = [_row(row, settings) for row in found]
        is_live = optimization.state in LIVE
    wanted = arranged(rows, asked)
    last = max(1, -(-len(wanted) // ROWS))
    number = min(asked.page, last)
    return page(
        "runs.html",
        optimization_id=optimization_id,
        domain_set=domain_set,
        settings=settings,
        rows=wanted[(number - 1) * ROWS : number * ROWS],
        first=(number - 1) * ROWS,
        matching=len(wanted),
        total=len(rows),
        number=number,
        last=last,
        asked=asked,
        best=best_of(rows),
        is_live=is_live,
    )


def asked_by(store: Session, run: RunView) -> Optimization | None:
    """The optimization whose swarm a run is of; None of a launch's, and of one that was brought."""
    query = select(Optimization).join(Swarm, Swarm.optimization_id == Optimization.id)
    return store.scalars(query.where(Swarm.id == run.swarm_id)).first()


@router.get("/runs/{run_id}")
@slow
def run(run_id: str, database: DatabaseDependency) -> Response:
    """One run: weights asked and realised, curves, what was measured."""
    with database.read() as store:
        view = describe_run(store, run_id)
        optimization = asked_by(store, view)
        settings = optimization.settings if optimization else {"tasks": []}
        series = [metric.model_dump() for metric in thinned(store, run_id, CURVE_POINTS)]
    weights = objective_weights({"settings": settings})
    return page(
        "run.html",
        run=view,
        called=view.name or f"run {view.index}",
        optimization_id=optimization.id if optimization else None,
        settings=settings,
        weights=weights,
        has_model=view.state == "succeeded"
        and settings.get("trained", HERE) == HERE
        and bool(settings.get("proxy")),
        domains=sorted(view.weights.items(), key=lambda item: (-item[1], item[0]))[:MOST_WEIGHTS],
        curves=curves_of(series, weights),
        objective=objective_bpb(view.metrics, settings) if view.metrics else None,
        is_live=view.state in LIVE,
    )
