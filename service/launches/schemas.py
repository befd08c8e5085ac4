"""Requests and answers about launches."""

from pydantic import BaseModel, Field

from service.http.schemas import FailureView, Name, Time
from service.optimizations.schemas import TaskRequest, TrainingRequest
from service.swarms.schemas import RunProgress
from store.launcher_settings import BUILT_IN


class LaunchRequest(TrainingRequest):
    """What to train on the mixture: a ``size``, an ``architecture`` or a ``start``, or whatever a launcher trains.

    ``repetition_cap`` refuses a run that repeats a domain more often.
    """

    mixture_id: str = Field(max_length=64)
    launcher: str = Field(default=BUILT_IN, max_length=64, description="Or one the operator configured.")
    name: Name | None = Field(
        default=None, description="Given to the launcher; the launch's id when left out."
    )
    tokens: int = Field(gt=0, lt=2**63)
    seed: int = Field(default=0, ge=0, lt=2**31)
    repetition_cap: float | None = Field(default=None, ge=1e-3, le=1e6)
    tasks: list[TaskRequest] = Field(
        default_factory=list, max_length=1000, description="The optimization's tasks when left out."
    )


class LaunchView(BaseModel):
    """A launch, its model and what was measured on it."""

    id: str
    mixture_id: str
    mixture_kind: str
    optimization_id: str | None
    run_id: str
    state: str
    settings: dict[str, object]
    progress: RunProgress | None
    metrics: dict[str, float]
    exit_status: int | None
    realised_tokens: dict[str, int] | None
    tokens: int | None
    seconds: float | None
    parameters: int | None
    non_embedding_parameters: int | None
    failure: FailureView | None
    created_at: Time
