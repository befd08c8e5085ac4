"""What a page shows, to take away: a table as CSV with every digit, a chart as an SVG that needs no style sheet."""

import re
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Path, Response
from sqlalchemy.orm import Session

from service.dashboard.charts import CURVE_POINTS, curves_of
from service.dashboard.drawing import drawn_alone
from service.dashboard.session import PageRoute
from service.dashboard.sheets import (
    OF_OPTIMIZATION,
    OF_TRAINED,
    Row,
    Shown,
    Trained,
    called,
    csv_of,
    domain_rows,
    domains_of,
    held_out_rows,
    launch_of,
    prediction_rows,
    run_of,
    shown_of,
)
from service.dashboard.tables import gain_groups
from service.dashboard.trust import MOST_TASKS, objective_figures, task_figures
from service.domain_sets.repository import describe_revision, has_many_domains, is_wide, revision_of
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, slow
from service.launches.comparison import objective_weights
from service.launches.metrics import thinned
from service.launches.service import is_wide as is_wide_launch
from service.mixtures.held_out import get_held_out
from service.optimizations.service import optimization_with_id
from store.engine import Database
from store.problems import Conflict, existing

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def _file(text: str, kind: str, name: str) -> Response:
    """What a browser saves under a name made of letters, digits, '.', '_' and '-'."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "mixwright"
    suffix = "svg" if "svg" in kind else "csv"
    headers = {
        "Content-Disposition": f'attachment; filename="{safe}.{suffix}"',
        "Cache-Control": "no-store",
    }
    return Response(text, media_type=kind, headers=headers)


def _sheet(rows: Iterable[Row], name: str) -> Response:
    return _file(csv_of(rows), "text/csv", name)


def _picture(name: str, about: str, macro: str, *given: object) -> Response:
    return _file(drawn_alone(macro, about, *given), "image/svg+xml", name)


# Of an optimization.


@router.get("/optimizations/{optimization_id}/{table}.csv")
@slow
def optimization_table(
    optimization_id: str,
    table: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
) -> Response:
    """A table of an optimization's pages."""
    with database.read() as store:
        row = optimization_with_id(store, optimization_id)
        name, is_much = f"{called(row)}-{table}", table == "runs" or has_many_domains(store, row.revision_id)
    if table == "held-out":
        return _sheet(held_out_rows(get_held_out(optimization_id, settings, compute, MOST_TASKS)), name)
    existing(OF_OPTIMIZATION.get(table), "table", table)
    return compute.read(is_much, _optimization_sheet, database, optimization_id, table, name)


def _optimization_sheet(database: Database, optimization_id: str, table: str, name: str) -> Response:
    with database.read() as store:
        return _sheet(OF_OPTIMIZATION[table](store, optimization_id), name)


@router.get("/optimizations/{optimization_id}/{chart}.svg")
@slow
def optimization_chart(
    optimization_id: str,
    chart: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
) -> Response:
    """A chart of an optimization's pages."""
    with database.read() as store:
        wide = has_many_domains(store, optimization_with_id(store, optimization_id).revision_id)
    shown = compute.read(wide, _read_shown, database, optimization_id)
    name = f"{shown.name}-{chart}"
    if chart in ("mixture", "gains"):
        if not shown.evidence.domains or (chart == "gains" and shown.evidence.objective is None):
            raise Conflict("nothing_there", "There is nothing in this chart yet.")
        table = shown.mixture
        rows = [source.total for source in table.sources] if table.is_long else domains_of(table)
        given = (table, rows) if chart == "mixture" else (gain_groups(shown.evidence, shown.measured),)
        return _picture(name, shown.about, chart, *given)
    held = get_held_out(optimization_id, settings, compute, MOST_TASKS)
    figures = {one.id: one for one in (*objective_figures(held, shown.evidence), *task_figures(held))}
    return _picture(name, shown.about, "scatter", existing(figures.get(chart), "chart", chart))


def _read_shown(database: Database, optimization_id: str) -> Shown:
    with database.read() as store:
        return shown_of(store, optimization_id)


# Of a run, and of a launch, which is one run.


@router.get("/runs/{run_id}/{table}.csv")
@slow
def run_table(run_id: str, table: str, database: DatabaseDependency) -> Response:
    """A table of a run's page."""
    make = existing(OF_TRAINED.get(table), "table", table)
    with database.read() as store:
        one = run_of(store, run_id)
        return _sheet(make(store, one), f"{one.name}-{table}")


@router.get("/launches/{launch_id}/{table}.csv")
@slow
def launch_table(
    launch_id: str, table: str, database: DatabaseDependency, compute: ComputeDependency
) -> Response:
    """A table of a launch's page."""
    if table != "prediction":
        existing(OF_TRAINED.get(table), "table", table)
    with database.read() as store:
        wide = is_wide_launch(store, launch_id)
    return compute.read(wide, _launch_sheet, database, launch_id, table)


def _launch_sheet(database: Database, launch_id: str, table: str) -> Response:
    with database.read() as store:
        one = launch_of(store, launch_id)
        is_held = table == "prediction"
        rows = prediction_rows(store, launch_id) if is_held else OF_TRAINED[table](store, one)
        return _sheet(rows, f"{one.name}-{table}")


@router.get("/runs/{run_id}/curve-{number}.svg")
@slow
def run_curve(run_id: str, number: int, database: DatabaseDependency) -> Response:
    """A curve of a run's page."""
    with database.read() as store:
        return _curve(store, run_of(store, run_id), number)


@router.get("/launches/{launch_id}/curve-{number}.svg")
@slow
def launch_curve(launch_id: str, number: int, database: DatabaseDependency) -> Response:
    """A curve of a launch's page."""
    with database.read() as store:
        return _curve(store, launch_of(store, launch_id), number)


def _curve(store: Session, one: Trained, number: int) -> Response:
    series = [view.model_dump() for view in thinned(store, one.run_id, CURVE_POINTS)]
    curves = dict(enumerate(curves_of(series, objective_weights({"settings": one.settings})), 1))
    curve = existing(curves.get(number), "chart", f"curve-{number}")
    return _picture(f"{one.name}-{curve.name}", one.name, "curve", curve, number)


# Of a domain set.


@router.get("/domain-sets/{name}/revisions/{number}/domains.csv")
@slow
def domains_table(
    name: str,
    number: Annotated[int, Path(ge=1, lt=2**31)],
    database: DatabaseDependency,
    compute: ComputeDependency,
) -> Response:
    """The domains of a revision."""
    with database.read() as store:
        wide = is_wide(store, name, number)
    return compute.read(wide, _domains_sheet, database, name, number)


def _domains_sheet(database: Database, name: str, number: int) -> Response:
    with database.read() as store:
        rows = domain_rows(describe_revision(store, revision_of(store, name, number)))
    return _sheet(rows, f"{name}-revision-{number}-domains")
