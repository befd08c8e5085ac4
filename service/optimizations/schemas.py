"""Requests and answers about optimizations."""

from pydantic import BaseModel, Field, field_validator

from service.schemas import FailureView, Name, RequestModel, Time


class TaskRequest(RequestModel):
    """Something measured on every model: a JSONL file of ``{"context", "continuation"}``, scored in BPB."""

    name: Name
    path: str = Field(min_length=1, max_length=4096)
    family: str | None = Field(default=None, max_length=64)
    weight: float = Field(default=1.0, ge=0.0, le=1e6, description="Its share in the objective, normalised.")


class TrainingRequest(RequestModel):
    """How a model is trained; ``learning_rate`` null is the size's measured default."""

    size: str = Field(default="nano-0.1M", max_length=64)
    sequence_length: int = Field(default=128, ge=16, le=32_768)
    batch_rows: int = Field(default=8, ge=1, le=4096)
    learning_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    evaluations: int = Field(default=3, ge=1, le=100, description="Checkpoints evaluated near the end.")


class ProxyRequest(TrainingRequest):
    """The proxy model every run of the swarm trains."""

    tokens: int = Field(gt=0, lt=2**63)


class OptimizationRequest(RequestModel):
    """What to find a mixture for. Without tasks the objective is the domains' own held-out slices."""

    domain_set: Name
    revision: int | None = Field(default=None, ge=1, description="The latest when left out.")
    method: str = Field(default="olmix", max_length=64)
    runs: int | None = Field(default=None, ge=1, description="The method's default when left out.")
    seed: int = Field(default=0, ge=0, lt=2**31)
    target_tokens: int = Field(gt=0, lt=2**63)
    repetition_cap: float | None = Field(
        default=None, gt=0.0, le=1e6, description="Epochs; null: the method's."
    )
    kl_weight: float | None = Field(default=None, ge=0.0, le=1e6)
    strengths: tuple[float, float] = Field(
        default=(0.1, 5.0),
        description="Lowest and highest strength of the Dirichlet draws; stronger is closer to natural.",
    )
    proxy: ProxyRequest
    tasks: list[TaskRequest] = Field(default_factory=list, max_length=1000)

    @field_validator("strengths")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1] <= 1e6:
            raise ValueError("strengths must rise from above 0")
        return value


class StageView(BaseModel):
    """One stage: prepare (domains), sample (swarm), train (runs), solve (mixture)."""

    name: str
    state: str
    done: int
    total: int
    seconds: float


class RunCounts(BaseModel):
    """Proxy runs by state."""

    total: int
    succeeded: int
    failed: int
    running: int
    queued: int
    cancelled: int


class OptimizationProgress(BaseModel):
    """Counts, rate and cost; ``eta_seconds`` is for the training stage and null before a rate is known."""

    stages: list[StageView]
    runs: RunCounts
    tokens_trained: int
    tokens_total: int
    tokens_per_second: float
    eta_seconds: float | None
    cpu_seconds: float


class LostRun(BaseModel):
    """A proxy run that failed for good; the regression was fitted without it."""

    run_id: str
    reason: str


class OptimizationView(BaseModel):
    """An optimization, how far it has come, and where its result is."""

    id: str
    domain_set: str
    revision: int
    method: str
    seed: int
    state: str
    stage: str
    settings: dict[str, object]
    progress: OptimizationProgress
    swarm_id: str | None
    mixture_id: str | None
    natural_mixture_id: str | None
    lost_runs: list[LostRun]
    failure: FailureView | None
    created_at: Time
    updated_at: Time


class OptimizationSummary(BaseModel):
    """An optimization in a list."""

    id: str
    domain_set: str
    revision: int
    method: str
    state: str
    created_at: Time
