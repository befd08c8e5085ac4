"""Answers about optimizations."""

from collections import Counter
from typing import Literal

from pydantic import BaseModel, Field

from service.http.schemas import FailureView, Time
from store import jobs


class StageView(BaseModel):
    """One stage: prepare (domains), sample (swarm), train (runs), solve (mixture)."""

    name: str
    state: str
    done: int
    total: int
    seconds: float


class RunCounts(BaseModel):
    """Proxy runs by state; ``waiting`` are trained elsewhere, and their results are not in."""

    total: int
    succeeded: int
    failed: int
    running: int
    queued: int
    waiting: int
    cancelled: int


def run_counts(states: Counter[str]) -> RunCounts:
    """Of jobs by state."""
    return RunCounts(
        total=states.total(),
        succeeded=states[jobs.SUCCEEDED],
        failed=states[jobs.FAILED],
        running=states[jobs.CLAIMED] + states[jobs.RUNNING],
        queued=states[jobs.QUEUED],
        waiting=states[jobs.WAITING],
        cancelled=states[jobs.CANCELLED],
    )


def may_be_finished(state: str, minimum_runs: int, sampling: Counter[str], runs: Counter[str]) -> bool:
    """Whether an optimization, of runs trained elsewhere, has results to be fitted while it waits for others.

    ``sampling`` and ``runs`` are its jobs by state.
    """
    is_sampled = not any(sampling[live] for live in jobs.LIVE)
    waits = state in jobs.LIVE and runs[jobs.WAITING] > 0
    return waits and is_sampled and runs[jobs.SUCCEEDED] >= minimum_runs


class LookView(BaseModel):
    """What was known before a round: what the proposal was expected to give away, and whether that is little enough.

    ``expected_regret`` and the ``noise`` of one run are in the objective's unit.
    """

    round: int
    runs: int
    expected_regret: float
    noise: float | None
    met: Literal["expected_regret", "noise"] | None = Field(description="What of `stop_when` it met.")
    can_be_met: bool = Field(
        description="Whether the rule may be met by the planned runs, if the regret falls as fast as it can."
    )


class StoppedView(BaseModel):
    """Training that ended before the last round, and what that saved."""

    runs: int
    planned: int
    saved: int
    device_hours: float | None = Field(description="Of the saved runs; null where nobody knows.")
    sentence: str


class OptimizationProgress(BaseModel):
    """Counts, rate and cost; ``eta_seconds`` is for the training stage and null before a rate is known."""

    stages: list[StageView]
    runs: RunCounts
    tokens_trained: int
    tokens_total: int
    tokens_per_second: float
    eta_seconds: float | None
    cpu_seconds: float
    looks: list[LookView] = Field(description="With `stop_when`: before each round that could be left out.")
    stopped: StoppedView | None = Field(description="Null: nothing was left out.")


class LostRun(BaseModel):
    """A proxy run that failed for good; the regression was fitted without it."""

    run_id: str
    reason: str


class CostView(BaseModel):
    """What the swarm costs. FLOPs are additions and multiplications, counted apart; hours are one worker's alone.

    ``device_hours`` are CPU-hours of one process or GPU-hours, by ``source``: this swarm's own finished runs, past
    runs of the same proxy, or the calibrated device; null with ``unknown`` saying why. ``backend``, ``waves`` of up
    to ``members`` models and ``device`` are by calibration alone. Evaluation's FLOPs are at most so many, and null
    before the domains are counted. ``largest_wave`` models fit into one worker's share of ``memory_bytes`` together.
    """

    flops_per_token: int
    tokens: int
    training_flops: int
    evaluation_flops: int | None
    device_hours: float | None
    source: Literal["own_runs", "past_runs", "calibration"] | None
    unknown: str | None
    device: str | None
    backend: str | None
    members: int | None
    waves: int | None
    bytes_per_model: int | None
    memory_bytes: int | None
    largest_wave: int | None


class ToKnowView(BaseModel):
    """Anchors that would tell what gains at the proxies are worth at the target: half way there, as doublings count.

    ``unknown`` and ``known`` are the ends of the 90% interval of that factor now and after them.
    """

    runs: int
    parameters: int
    size: str | None = Field(description="The named size nearest to that.")
    tokens: int
    device_hours: float | None = Field(description="Null where nobody knows how fast the workers are.")
    unknown: tuple[float, float]
    known: tuple[float, float]


class OptimizationSummary(BaseModel):
    """An optimization in a list."""

    id: str
    domain_set: str
    revision: int
    method: str
    state: str
    created_at: Time


class OptimizationView(OptimizationSummary):
    """An optimization, how far it has come, and where its result is."""

    seed: int
    stage: str
    settings: dict[str, object]
    progress: OptimizationProgress
    cost: CostView | None = Field(description="Null: nothing is trained, or the vocabulary is not known yet.")
    anchor_costs: list[CostView] = Field(description="Likewise of each of the `anchors`, beside the swarm's.")
    to_know: ToKnowView | None = Field(
        description="What knowing the transfer to the target costs. Null: no target."
    )
    can_finish: bool = Field(
        description="Of runs trained elsewhere: the results that are in are enough for `:finish`, others are awaited."
    )
    swarm_id: str | None
    warnings: list[str] = Field(
        description="What is doubtful about the tasks; whether they are trained on is found with the swarm."
    )
    mixture_id: str | None
    earlier_mixture_ids: list[str] = Field(description="The answers before it was extended, the first first.")
    natural_mixture_id: str | None
    lost_runs: list[LostRun]
    failure: FailureView | None
    updated_at: Time


class Hours(BaseModel):
    """Worker hours, by the source the cost names: CPU-hours on a CPU, device-hours on a GPU. Null where none is."""

    new: float | None
    recompute: float | None


class ExtensionView(BaseModel):
    """What an extension would train: nothing is stored."""

    optimization_id: str
    runs: int
    rounds: list[int] = Field(description="Of them.")
    sampler: str
    total_runs: int = Field(description="With those there are.")
    expected_regret: float | None = Field(
        description="Of the answer there is; null where it was not cross-validated."
    )
    best_expected_regret: float | None = Field(
        description="With the new runs, if it falls as fast as it can: as one over their number."
    )
    cost: CostView | None = Field(description="Of the new runs; null where they are trained elsewhere.")
    sentences: list[str]


class PlanView(BaseModel):
    """What an optimization would freeze, train and reuse: nothing is stored."""

    domain_set: str
    revision: int
    method: str
    mixture_id: str | None
    sentences: list[str]
    hours: Hours
    cost: CostView | None = Field(description="Null: nothing is trained, or the vocabulary is not known yet.")
    anchor_costs: list[CostView] = Field(description="Likewise of each of the `anchors`, beside the swarm's.")
    to_know: ToKnowView | None = Field(
        default=None, description="What knowing the transfer to the target costs. Null: no target."
    )
    warnings: list[str] = Field(description="What to know of the text: copies, shared text, declared counts.")
    plan: dict[str, object]
