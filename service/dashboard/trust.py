"""How far an answer can be trusted: held-out runs beside what was predicted of them, and how past answers held."""

from fastapi import APIRouter, Response

from service.dashboard.charts import Figure, scatter
from service.dashboard.evidence import Evidence
from service.dashboard.formatting import bpb, decimals
from service.dashboard.session import PageRoute
from service.dashboard.templating import page
from service.http.routes import ComputeDependency, DatabaseDependency, SettingsDependency, slow
from service.launches.record import record_of
from service.mixtures.held_out import HeldOutColumn, HeldOutView, get_held_out
from service.mixtures.service import describe_mixture
from service.optimizations.service import mixtures_of, optimization_with_id
from store.problems import Problem

router = APIRouter(route_class=PageRoute, include_in_schema=False)
MOST_TASKS = 12
MOST_ROWS = 1000
"""Held-out runs of the table; a chart has all of them."""


def objective_figures(held: HeldOutView, evidence: Evidence) -> list[Figure]:
    """Predicted against measured, what is missed, and where the proposal lies among the runs."""
    column = held.objective
    if column is None:
        return []
    pairs = list(zip(column.predicted, column.measured, strict=True))
    missed = [(said, None if was is None else was - said) for said, was in pairs]
    predicted = f"predicted, {column.unit or 'objective'}"
    figures = [
        Figure(
            id="predicted",
            title="Predicted against measured, the objective",
            description="A dot for each held-out run; on the line it was predicted exactly.",
            across=predicted,
            up="measured",
            plot=scatter(pairs, is_square=True),
        ),
        Figure(
            id="residuals",
            title="Residuals of the objective",
            description="Measured less predicted over predicted, a dot for each held-out run.",
            across=predicted,
            up="measured less predicted",
            plot=scatter(missed),
            line="nothing",
        ),
    ]
    return figures if evidence.objective is None else [*figures, _among(held, column, evidence)]


def _among(held: HeldOutView, column: HeldOutColumn, evidence: Evidence) -> Figure:
    assert evidence.objective is not None
    moved = sum(abs(domain.weight - domain.natural) for domain in evidence.domains) / 2
    marked = [("natural", 0.0, evidence.objective.natural), ("proposed", moved, evidence.objective.proposed)]
    return Figure(
        id="among",
        title="Where the proposal lies among the runs",
        description="The objective measured of each run over the share of its mixture that lies elsewhere than in"
        " the natural one; diamonds are predicted.",
        across="share moved from natural",
        up="objective",
        plot=scatter(zip(held.moved, column.measured, strict=True), marked),
        line="none",
    )


def task_figures(held: HeldOutView) -> list[Figure]:
    """Predicted against measured of each task."""
    return [
        Figure(
            id=f"task-{number}",
            title=f"{column.name}: predicted against measured",
            description=f"Rank correlation {decimals(column.rank_correlation)}, mean error {bpb(column.mae)}.",
            across=f"predicted, order {decimals(column.rank_correlation)}",
            up=column.name,
            plot=scatter(zip(column.predicted, column.measured, strict=True), is_square=True),
            height=160,
        )
        for number, column in enumerate(held.tasks, 1)
    ]


def columns_of(held: HeldOutView) -> list[HeldOutColumn]:
    """The objective, then its tasks."""
    return [column for column in (held.objective, *held.tasks) if column is not None]


@router.get("/optimizations/{optimization_id}/trust")
@slow
def trust(
    optimization_id: str,
    database: DatabaseDependency,
    settings: SettingsDependency,
    compute: ComputeDependency,
) -> Response:
    """Held-out runs, where the proposal lies among them, what it was said of it, and how earlier answers held."""
    with database.read() as store:
        row = optimization_with_id(store, optimization_id)
        name = row.revision.domain_set.name
        mixture = mixtures_of(store, optimization_id).get("proposed")
        document = describe_mixture(store, mixture).evidence if mixture else None
        record = record_of(store, name)
    evidence = Evidence.model_validate(document or {})
    try:
        held, refusal = get_held_out(optimization_id, settings, compute, MOST_TASKS), None
    except Problem as refused:
        held, refusal = HeldOutView(runs=0, moved=[], objective=None, tasks=[]), refused.detail
    return page(
        "trust.html",
        optimization_id=optimization_id,
        domain_set=name,
        evidence=evidence,
        notes=(document or {}).get("notes", []),
        held=held,
        columns=columns_of(held),
        figures=objective_figures(held, evidence),
        by_task=task_figures(held),
        refusal=refusal,
        record=record,
        most_rows=MOST_ROWS,
    )
