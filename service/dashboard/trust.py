"""How far an answer can be trusted: held-out runs beside what was predicted of them, and how past answers held."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Response

from service.dashboard.charts import Scatter, scatter
from service.dashboard.evidence import Evidence
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


@dataclass(frozen=True, slots=True)
class Judged:
    """A column of the held-out runs with its charts."""

    column: HeldOutColumn
    predicted: Scatter
    residuals: Scatter

    @classmethod
    def of(cls, column: HeldOutColumn) -> "Judged":
        """Both to a scale of their own."""
        pairs = list(zip(column.predicted, column.measured, strict=True))
        off = [(said, None if was is None else was - said) for said, was in pairs]
        return cls(
            column, scatter(column.name, pairs, is_square=True), scatter(f"{column.name}, missed by", off)
        )


def among_the_runs(held: HeldOutView, evidence: Evidence, moved: float) -> Scatter | None:
    """The objective of each run over how far its mixture is from natural, and what is predicted of both mixtures."""
    if held.objective is None or evidence.objective is None:
        return None
    marked = [("natural", 0.0, evidence.objective.natural), ("proposed", moved, evidence.objective.proposed)]
    return scatter("objective", zip(held.moved, held.objective.measured, strict=True), marked)


def moved_of(evidence: Evidence) -> float:
    """The share of the proposed mixture that is elsewhere in the natural one."""
    return sum(abs(domain.weight - domain.natural) for domain in evidence.domains) / 2


def judged_of(held: HeldOutView) -> Sequence[Judged]:
    """The objective, then its tasks."""
    return [Judged.of(column) for column in (held.objective, *held.tasks) if column is not None]


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
        judged=judged_of(held),
        among=among_the_runs(held, evidence, moved_of(evidence)),
        refusal=refusal,
        record=record,
        most_rows=MOST_ROWS,
    )
