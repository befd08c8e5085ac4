"""Answers about swarms and runs."""

from pydantic import BaseModel

from service.http.schemas import FailureView, Time, Weights
from service.optimizations.schemas import RunCounts


class SwarmView(BaseModel):
    """The proxy runs sampled for one optimization."""

    id: str
    optimization_id: str
    domain_set: str
    revision: int
    runs: RunCounts
    created_at: Time


class RunProgress(BaseModel):
    """Tokens trained of those to train, while the run is under way."""

    done: int
    total: int
    tokens_per_second: float | None = None
    loss: float | None = None


class RunSummary(BaseModel):
    """A run in a list.

    ``metrics`` has every task, every domain's held-out slice, and of a task with choices its other metric as
    ``<task>/accuracy`` or ``<task>/bpb``. ``round`` is the one it was sampled in, from 0; ``requested_tokens`` is
    what it was asked to train, and ``tokens`` what it has trained.
    """

    id: str
    swarm_id: str | None
    launch_id: str | None
    index: int
    round: int
    state: str
    attempt: int
    seed: int
    metrics: dict[str, float]
    requested_tokens: int
    tokens: int | None
    seconds: float | None
    progress: RunProgress | None
    failure: FailureView | None
    created_at: Time


class RunView(RunSummary):
    """One model, one mixture, one seed; ``realised_weights`` are counted tokens over their sum."""

    weights: Weights
    realised_weights: Weights | None
    realised_tokens: dict[str, int] | None
    parameters: int | None
    non_embedding_parameters: int | None


class MetricView(BaseModel):
    """One evaluation: a task's value (BPB, or an accuracy as a share of 1) after ``step`` steps."""

    step: int
    tokens: int
    task: str
    value: float
