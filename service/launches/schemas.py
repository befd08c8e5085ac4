"""Requests for launches, and what is answered about them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from service.http.schemas import Name, RequestModel, Time
from service.optimizations.schemas import TaskName, TaskRequest, TrainingRequest
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


class KeepingRequest(RequestModel):
    """What the built-in trainer measures and keeps on the way; no number of the run depends on it."""

    evaluate_every: int | None = Field(
        default=None,
        ge=1,
        lt=2**31,
        description="Steps between evaluations, beside those near the end; null: only these.",
    )
    checkpoints: int = Field(default=1, ge=1, le=100, description="The newest, kept while it trains.")
    models: bool = Field(default=False, description="Keep the model of every evaluation.")
    average: int = Field(
        default=0, ge=0, le=100, description="Write and measure the mean of so many last evaluations' models."
    )


Seed = Annotated[int, Field(ge=0, lt=2**31)]
MOST_TOGETHER = 64
"""Launches of one request."""


class LaunchRequest(TrainingRequest):
    """What to train on the mixture: a ``size``, an ``architecture`` or a ``start``, or whatever a launcher trains.

    ``repetition_cap`` refuses a run that repeats a domain more often.
    """

    mixture_id: str = Field(max_length=64)
    launcher: str = Field(default=BUILT_IN, max_length=64, description="Or one the operator configured.")
    engine: EngineRequest | None = Field(default=None, description="Of the built-in trainer.")
    keeping: KeepingRequest | None = Field(default=None, description="Of the built-in trainer.")
    name: Name | None = Field(
        default=None, description="Given to the launcher; the launch's id when left out."
    )
    callback: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="Address that is told when it ends, by a signed POST; of an origin the operator allows.",
    )
    tokens: int | None = Field(default=None, gt=0, lt=2**63)
    budgets: list[Annotated[int, Field(gt=0, lt=2**63)]] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Instead of tokens: a launch of each, which decays to its own end. The answer is a page of them.",
    )
    seed: Seed = 0
    seeds: list[Seed] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Instead of a seed: a launch of each, of each budget. The answer is a page of them.",
    )
    repetition_cap: float | None = Field(default=None, ge=1e-3, le=1e6)
    tasks: list[TaskRequest] = Field(
        default_factory=list,
        max_length=1000,
        description="The optimization's when left out. Of a program names alone: it measures.",
    )

    @model_validator(mode="after")
    def _how_much(self) -> Self:
        if (self.tokens is None) == (self.budgets is None):
            raise ValueError("give tokens, or the budgets of several launches")
        if self.seeds is not None and "seed" in self.model_fields_set:
            raise ValueError("give a seed, or the seeds of several launches")
        for name, each in (("budgets", self.budgets), ("seeds", self.seeds)):
            if each is not None and len(set(each)) < len(each):
                raise ValueError(f"{name} has one number twice")
        if (together := len(self.budgets or [0]) * len(self.seeds or [0])) > MOST_TOGETHER:
            raise ValueError(f"budgets and seeds make {together} launches, and one request {MOST_TOGETHER}")
        return self

    @property
    def is_several(self) -> bool:
        """Whether the answer is a page."""
        return self.budgets is not None or self.seeds is not None

    @property
    def each(self) -> list[tuple[str, Self]]:
        """A request for each launch, with the member that says how much it trains."""
        budgets = (
            [("tokens", self.tokens)]
            if self.budgets is None
            else [(f"budgets[{index}]", tokens) for index, tokens in enumerate(self.budgets)]
        )
        one = {"budgets": None, "seeds": None}
        return [
            (field, self.model_copy(update={**one, "tokens": tokens, "seed": seed}))
            for field, tokens in budgets
            for seed in self.seeds or [self.seed]
        ]


class SubmissionView(BaseModel):
    """A launch on a scheduler as it was handed over, once: what the scheduler knows it by and says of it."""

    number: int = Field(
        description="From 1: it is handed over again where its machine or its time was taken away."
    )
    launcher: str
    name: str
    external_id: str | None
    state: str = Field(description="`new` (perhaps handed over), `queued`, `running` or `ended`.")
    said: str | None = Field(description="The scheduler's own word, or why it does not answer.")
    exit_status: int | None
    created_at: Time
    submitted_at: Time | None
    ended_at: Time | None


class LaunchView(TrainingView, ModelView):
    """A launch, its model and what was measured on it; ``log`` is where its end can be read."""

    mixture_id: str
    mixture_kind: str
    optimization_id: str | None
    run_id: str
    settings: dict[str, object]
    average: dict[str, float] = Field(description="What the mean of the last models measured, if asked for.")
    warnings: list[str] = Field(description="What was doubtful when it was asked for.")
    exit_status: int | None
    notes: list[str] = Field(description="What is amiss in the files of results that a program left.")
    submissions: list[SubmissionView]
    log: str


class ReportedProgress(RequestModel):
    """Tokens trained of those to train."""

    done: int = Field(ge=0, lt=2**63)
    total: int = Field(gt=0, lt=2**63)
    tokens_per_second: float | None = Field(default=None, ge=0)
    loss: float | None = None


class ReportRequest(RequestModel):
    """What whoever was handed a launch, by a webhook without a ``status_url``, says of it."""

    submission: str = Field(max_length=255, description="The `name` it was handed over by.")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    detail: str | None = Field(default=None, max_length=2000)
    exit_status: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    progress: ReportedProgress | None = None


class RenderingView(BaseModel):
    """Exactly what would be run, with ids of noughts: a program without a shell, or a request that would be sent."""

    arguments: list[str]
    directory: str
    environment: list[str] | None = Field(
        description="Names of the variables passed on; null: all but the service's own settings."
    )
    files: dict[str, str] = Field(description="Written before, content by path.")
    request: dict[str, object] | None


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
    device_hours: float | None = Field(description="By the device's calibration; null where nobody knows.")
    warnings: list[str] = Field(
        description="Domains too small for a row, and what is known of its tasks' text being trained on."
    )
    domains: list[ReadView]
    run: RenderingView | None = Field(description="What a launcher would run; null for the built-in trainer.")


class PointRequest(RequestModel):
    """What was measured after a step of training."""

    step: int = Field(ge=0, lt=2**31)
    tokens: int = Field(ge=0, lt=2**63, description="Trained by then.")
    metrics: dict[TaskName, float] = Field(min_length=1, max_length=10_000)


class MetricsRequest(RequestModel):
    """What a program's run measured: on the way, and of the model it ended with.

    A name is a task's, ``held-out/<domain>``, or what the trainer says of itself, ``training/loss`` and the like.
    """

    points: list[PointRequest] = Field(default_factory=list, max_length=10_000)
    final: dict[TaskName, float] = Field(default_factory=dict, max_length=10_000)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.points and not self.final:
            raise ValueError("give points, or final results")
        return self


class KeptView(BaseModel):
    """How many values were kept, and all final results that there are now."""

    kept: int
    final: dict[str, float]


class GainView(BaseModel):
    """By how much the proposed mixture is better than the natural one; ``measured`` takes a launch of each."""

    predicted: float
    interval: tuple[float, float] | None
    measured: float | None
    is_inside: bool | None


class HeldView(BaseModel):
    """A task, or the objective: what the proxies predict on this mixture, what was measured, and the gain.

    ``interval`` is where one more proxy run is expected: ``is_inside`` is null unless the launch trained as they did.
    """

    name: str
    unit: str
    weight: float | None
    predicted: float
    interval: tuple[float, float] | None
    measured: float | None
    is_inside: bool | None
    gain: GainView


class LaunchComparisonView(BaseModel):
    """A launch held against what was predicted: the objective, then the tasks; none where nothing was predicted.

    ``against`` is the launch of the other mixture that the gains are measured with, ``note`` says what is missing.
    """

    launch_id: str
    mixture_kind: str
    is_final: bool = Field(description="Whether the launch has ended; until then the latest values count.")
    is_proxy: bool = Field(
        description="Whether it trained the very model that the proxies are, and as they did."
    )
    is_target: bool = Field(description="Whether it is the planned run, and the gains are predicted of that.")
    against: str | None
    note: str | None
    rows: list[HeldView]
