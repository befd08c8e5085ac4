"""``GET /v1/optimizations/{id}/held-out``: the runs beside what was predicted of them by who had not seen them."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from mixing.errors import MixingError
from service.http.routes import ComputeDependency, SettingsDependency, ThreadRoute, slow
from service.mixtures.evaluation import judge_of
from store.engine import database_for
from store.problems import invalid
from store.settings import Settings

router = APIRouter(prefix="/v1/optimizations", tags=["optimizations"], route_class=ThreadRoute)


class HeldOutColumn(BaseModel):
    """A task, or the objective: predicted and measured of every held-out run, in one order, as it is measured."""

    name: str
    weight: float | None = Field(description="In the objective; null of itself.")
    unit: str | None
    direction: str
    rank_correlation: float | None
    mae: float | None
    noise: float | None
    predicted: list[float] = Field(description="The mean over several divisions of the runs.")
    measured: list[float | None]


class HeldOutView(BaseModel):
    """The held-out runs; none where too few were left to fit to."""

    runs: int
    moved: list[float] = Field(
        description="Share of each run's mixture that is elsewhere in the natural one."
    )
    objective: HeldOutColumn | None
    tasks: list[HeldOutColumn]


def held_out_runs(settings: Settings, optimization_id: str, most: int) -> HeldOutView:
    """By the optimization's regression, fitted to its finished runs once: a computation.

    Raises a Problem: NotFound, Conflict where nothing was trained, Invalid for runs no regression can be fitted to.
    """
    from mixing.answer.held_out import held_out

    try:
        with database_for(settings.resolved_database_url) as database:
            judge = judge_of(database, settings, optimization_id)
        return HeldOutView.model_validate(held_out(judge.question, judge.learned, most))
    except MixingError as error:
        raise invalid(error) from error


@router.get("/{optimization_id}/held-out", response_model=HeldOutView)
@slow
def get_held_out(
    optimization_id: str,
    settings: SettingsDependency,
    compute: ComputeDependency,
    tasks: Annotated[
        int, Query(ge=0, le=1000, description="At most; those that count for most come first.")
    ] = 20,
) -> HeldOutView:
    """Every run beside what was predicted of it by a regression that had not seen it."""
    return compute(held_out_runs, settings, optimization_id, tasks)
