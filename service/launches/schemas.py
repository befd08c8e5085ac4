"""Requests for launches, and what is answered about them."""

from typing import Literal

from pydantic import BaseModel, Field

from service.http.schemas import Name, RequestModel
from service.optimizations.schemas import TaskRequest, TrainingRequest
from service.swarms.service import ModelView, TrainingView
from store.launchers.base import BUILT_IN


class EngineRequest(RequestModel):
    """How the built-in trainer holds its model; but for rounding no number depends on it."""

    sharding: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="`ddp`: every process has the whole model; `fsdp`: each has a part of every tensor.",
    )
    micro_batch_rows: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Rows a process computes at once; null: its share of the batch.",
    )
    recompute: bool = Field(
        default=False, description="Compute each layer again on the way back instead of keeping what it gave."
    )
    compiled: bool = Field(default=False, description="Each layer through `torch.compile`.")


class LaunchRequest(TrainingRequest):
    """What to train on the mixture: a ``size``, an ``architecture`` or a ``start``, or whatever a launcher trains.

    ``repetition_cap`` refuses a run that repeats a domain more often.
    """

    mixture_id: str = Field(max_length=64)
    launcher: str = Field(default=BUILT_IN, max_length=64, description="Or one the operator configured.")
    engine: EngineRequest | None = Field(default=None, description="Of the built-in trainer.")
    name: Name | None = Field(
        default=None, description="Given to the launcher; the launch's id when left out."
    )
    tokens: int = Field(gt=0, lt=2**63)
    seed: int = Field(default=0, ge=0, lt=2**31)
    repetition_cap: float | None = Field(default=None, ge=1e-3, le=1e6)
    tasks: list[TaskRequest] = Field(
        default_factory=list, max_length=1000, description="The optimization's tasks when left out."
    )


class LaunchView(TrainingView, ModelView):
    """A launch, its model and what was measured on it."""

    mixture_id: str
    mixture_kind: str
    optimization_id: str | None
    run_id: str
    settings: dict[str, object]
    exit_status: int | None


class ReadView(BaseModel):
    """A domain in a launch: its weight, the tokens it has and is read for, and how often that is."""

    name: str
    weight: float
    available_tokens: int | None
    tokens: float
    epochs: float | None


class LaunchPlanView(BaseModel):
    """What a launch would be: nothing is stored."""

    mixture_id: str
    mixture_kind: str
    launcher: str
    tokens: int
    settings: dict[str, object]
    domains: list[ReadView]
