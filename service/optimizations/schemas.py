"""Requests for optimizations."""

from collections import Counter
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from service.http.schemas import Name, RequestModel

Member = Annotated[str, Field(min_length=1, max_length=1000)]


class TaskFieldsRequest(RequestModel):
    """Where a task's records have what is scored; a dot in a name leads into a nested one."""

    context: Member = Field(description="A member, or a template with members in braces.")
    continuation: Member | None = Field(default=None, description="Likewise; of a task without choices.")
    choices: Member | list[Member] | None = Field(
        default=None, description="The member that is their list, or a member for each."
    )
    gold: Member | None = Field(
        default=None, description="Which choice is right: its index from 0, text, letter from A, or label."
    )
    labels: Member | None = Field(
        default=None, description="The member that is the list of the choices' labels."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.continuation is None) == (self.choices is None):
            raise ValueError("give either a continuation or choices")
        if (self.choices is None) != (self.gold is None) or (
            self.choices is None and self.labels is not None
        ):
            raise ValueError("choices go with gold, the right one, and only they have labels")
        return self


TaskName = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="Of a metric.")
]


class TaskFileRequest(RequestModel):
    """A file of ``{"context", "continuation"}`` or ``{"context", "choices", "gold"}``, or of another layout."""

    name: Name
    path: str = Field(min_length=1, max_length=4096)
    fields: TaskFieldsRequest | None = Field(
        default=None, description="Of records that are of another layout than is told by their members."
    )


class TaskRequest(RequestModel):
    """Something measured on every model: a file of ``{"context", "continuation"}``, scored in BPB.

    Or one of ``{"context", "choices", "gold"}``: the BPB of the gold choices and the accuracy of ranking all of them
    are both measured, and ``metric`` says which of the two the task stands for.

    What is measured elsewhere has a name only, as its results call it, and the direction in which it is better.
    """

    name: TaskName
    path: str | None = Field(
        default=None, min_length=1, max_length=4096, description="Left out of what is measured elsewhere."
    )
    fields: TaskFieldsRequest | None = Field(
        default=None, description="Of records that are of another layout than is told by their members."
    )
    family: Name | None = None
    weight: float = Field(default=1.0, ge=0.0, le=1e6, description="Its share in the objective, normalised.")
    metric: Literal["bpb", "accuracy", "lower", "higher"] | None = Field(
        default=None,
        description="`bpb` when left out. `accuracy`, a share of 1, is better when higher and needs choices. Of what"
        " is measured elsewhere also `lower` or `higher`, whichever is better, in any unit; `lower` when left out, or"
        " what the swarm says.",
    )
    normalization: Literal["none", "character", "token", "byte"] | None = Field(
        default=None,
        description="What the log-likelihood of a choice is divided by before ranking; `character` when left out.",
    )


DEFAULT_SIZE = "nano-0.1M"


class TrainingRequest(RequestModel):
    """How a model is trained, and which: a named ``size``, an ``architecture``, or that of the folder it starts from.

    ``learning_rate`` null is the size's measured default, or what the checkpoint it starts from ended with.
    """

    size: str | None = Field(
        default=None, max_length=64, description=f"{DEFAULT_SIZE} without `architecture` and `start`."
    )
    architecture: dict[str, Any] | None = Field(
        default=None,
        description="The content of a Hugging Face `config.json`: its `model_type` and sizes. The vocabulary is the "
        "domain set's tokenizer's.",
    )
    start: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Folder of a saved model to go on from, below a data root or the service's own runs.",
    )
    sequence_length: int = Field(default=128, ge=16, le=32_768)
    batch_rows: int = Field(default=8, ge=1, le=4096)
    learning_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    warmup_fraction: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Share of the steps in which the rate rises; null: a tenth, or none from a checkpoint.",
    )
    floor_fraction: float = Field(
        default=0.05, ge=0.0, le=1.0, description="What the rate falls to, as a share of its highest."
    )
    weight_decay: float = Field(default=0.1, ge=0.0, le=10.0)
    evaluations: int = Field(default=3, ge=1, le=100, description="Checkpoints evaluated near the end.")
    attend_across_documents: bool = Field(
        default=True, description="Whether attention reaches from a document into those before it in its row."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="What the products of training are computed in; evaluation is in float32.",
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.size is not None and self.architecture is not None:
            raise ValueError("give a size or an architecture, not both")
        return self


class ProxyRequest(TrainingRequest):
    """The proxy model every run of the swarm trains."""

    tokens: int = Field(gt=0, lt=2**63)


Selector = Annotated[str, Field(min_length=1, max_length=300)]
"""A domain, or a group of them."""


class ShareRequest(RequestModel):
    """A range, or a fixed value, for what some domains weigh together.

    ``domains`` are leaves, or groups: ``web`` stands for every ``web:...``. A pin has ``minimum`` equal to
    ``maximum``.
    """

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="How messages call it.",
    )
    domains: list[Selector] = Field(min_length=1, max_length=1000)
    minimum: float | None = Field(default=None, ge=0.0, le=1.0)
    maximum: float | None = Field(default=None, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("give a minimum, a maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("the minimum lies above the maximum")
        return self


class GuardRailRequest(RequestModel):
    """What no mixture may cost a task: a predicted metric, or a distance to the natural distribution's.

    Bounds are in the task's own unit: BPB has an ``at_most``, an accuracy an ``at_least``.
    """

    task: str = Field(min_length=1, max_length=300, description="A task's name, or `held-out/<domain>`.")
    at_most: float | None = Field(
        default=None, gt=0.0, description="The largest predicted metric, of one that is better when lower."
    )
    at_least: float | None = Field(
        default=None, gt=0.0, lt=1.0, description="The smallest predicted accuracy, as a share of 1."
    )
    worse_than_natural: float | None = Field(
        default=None,
        ge=0.0,
        description="By how much the predicted metric may be worse than the natural distribution's.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(bound is not None for bound in (self.at_most, self.at_least, self.worse_than_natural)) != 1:
            raise ValueError("give one of at_most, at_least and worse_than_natural")
        return self


Kind = Literal["full", "partial", "none", "auto"]


class ReuseRequest(RequestModel):
    """What is kept of the mixture in use and of older runs; a word alone is its ``kind``.

    ``full`` keeps the ratios of every unchanged domain, ``partial`` frees some of them, ``none`` recomputes all, and
    ``auto`` chooses by what the mixture's evidence tells.
    """

    kind: Kind = "auto"
    mixture: str | None = Field(
        default=None,
        max_length=64,
        description="To go on from; the newest proposed one of the nearest ancestor when left out.",
    )
    free: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=20_000, description="With `partial`: unchanged domains to recompute."
    )
    most_coupled: int | None = Field(
        default=None,
        ge=1,
        le=20_000,
        description="With `partial`: how many of the most coupled to recompute.",
    )
    runs: bool = Field(default=True, description="Whether runs of older revisions may count.")

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("free")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if repeated := sorted(name for name, times in Counter(value).items() if times > 1):
            raise ValueError(f"named twice: {', '.join(repeated)}")
        return value


class TargetRequest(RequestModel):
    """The planned training run: its model, as a named size, an architecture or a number of parameters, and tokens."""

    size: str | None = Field(default=None, max_length=64)
    architecture: dict[str, Any] | None = Field(
        default=None, description="The content of a Hugging Face `config.json`."
    )
    parameters: int | None = Field(
        default=None, gt=0, lt=2**63, description="Those of its layers; embeddings and head are not counted."
    )
    tokens: int | None = Field(
        default=None, gt=0, lt=2**63, description="`target_tokens` when left out, and no other number."
    )

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if sum(given is not None for given in (self.size, self.architecture, self.parameters)) != 1:
            raise ValueError("give one of size, architecture and parameters")
        return self


class AnchorsRequest(RequestModel):
    """Runs of one other size or length, trained as the proxies beside that."""

    runs: int = Field(
        ge=3, le=1000, description="The natural mixture, the proxies' best, and others of the swarm's."
    )
    size: str | None = Field(default=None, max_length=64, description="The proxies' when left out.")
    tokens: int | None = Field(default=None, gt=0, lt=2**63, description="The proxies' when left out.")

    @model_validator(mode="after")
    def _another(self) -> Self:
        if self.size is None and self.tokens is None:
            raise ValueError("give a size or tokens other than the proxies'")
        return self


class StopRequest(RequestModel):
    """When no further round is trained; either part stops by itself. The word `noise` alone is that part."""

    expected_regret: float | None = Field(
        default=None,
        description="What the proposal may be expected to give away, above 0, in the objective's unit.",
    )
    noise: bool = Field(
        default=False,
        description="Whether less than a run's noise may be: what another seed would differ by.",
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return {"noise": True} if value == "noise" else value


class ExtendRequest(RequestModel):
    """More runs for an optimization that has an answer: a number of them, or what they may take."""

    runs: int | None = Field(default=None, ge=1, le=1_000_000)
    device_hours: float | None = Field(
        default=None, gt=0.0, le=1e9, description="As many runs as that is enough for, by the finished ones."
    )
    rounds: int = Field(default=1, ge=1, le=100, description="In which they are trained, nearly equal ones.")
    stop_when: StopRequest | None = Field(
        default=None,
        description="In the place of what the optimization had; asked before each of the rounds.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.runs is None) == (self.device_hours is None):
            raise ValueError("give runs or device_hours")
        return self


ProxyName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class OptimizationRequest(RequestModel):
    """What to find a mixture for. Without tasks the objective is the domains' own held-out slices.

    A method is a sampler, a regression, a granularity and a solver; each can be replaced by name.
    """

    domain_set: Name
    revision: int | None = Field(default=None, ge=1, lt=2**31, description="The latest when left out.")
    method: str = Field(default="mixwright", max_length=64)
    sampler: str | None = Field(default=None, max_length=64, description="The method's when left out.")
    regression: str | None = Field(default=None, max_length=64, description="The method's when left out.")
    granularity: str | None = Field(default=None, max_length=64, description="The method's when left out.")
    solver: str | None = Field(default=None, max_length=64, description="The method's when left out.")
    runs: int | None = Field(default=None, ge=1, description="The method's default when left out.")
    rounds: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="In which the swarm is trained, each later one where it is expected to change the decision most;"
        " the method's when left out, 5 with `stop_when`.",
    )
    stop_when: StopRequest | None = Field(
        default=None,
        description="Asked before each round but the first: `runs` are then the most that are trained.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31)
    target_tokens: int = Field(gt=0, lt=2**63)
    repetition_cap: float | None = Field(
        default=None, ge=1e-3, le=1e6, description="Epochs; null: the method's."
    )
    kl_weight: float | None = Field(default=None, ge=0.0, le=1e6)
    kl_unit: Literal["spread", "metric"] = Field(
        default="spread",
        description="What the KL weight is counted in: `spread`, where it weighs the same whatever the tasks are "
        "measured in (as BPB of an objective that varies by .2 over the runs), or the objective's own unit.",
    )
    repetition_price: float | None = Field(
        default=None,
        ge=0.0,
        le=1e6,
        description="What it costs the objective, in its unit, to waste the whole run on repeated tokens; beside the "
        "cap, or instead of it.",
    )
    strengths: tuple[float, float] = Field(
        default=(0.1, 5.0),
        strict=False,  # JSON has lists only
        description="Lowest and highest strength of the Dirichlet draws; stronger is closer to natural.",
    )
    temperature: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="Exponent of the method `temperature`: 1 natural, 0 uniform.",
    )
    proxy: ProxyRequest | None = Field(
        default=None, description="What is trained here; needed by every method that trains runs."
    )
    trained: Literal["here", "elsewhere"] = Field(
        default="here",
        description="`elsewhere`: the swarm is sampled here and waits for results (`POST /v1/swarms/{id}/results`).",
    )
    proxy_name: ProxyName | None = Field(default=None, description="What is trained elsewhere, in words.")
    run_tokens: int | None = Field(
        default=None,
        gt=0,
        lt=2**63,
        description="What a run trains elsewhere, where it matters to the method.",
    )
    run_parameters: int | None = Field(
        default=None,
        gt=0,
        lt=2**63,
        description="What the model of a run elsewhere has, embeddings and head not counted; a `target` needs it.",
    )
    target: TargetRequest | None = Field(
        default=None,
        description="The planned training run, for a prediction of what it gains (`at_target`) and not only of what a"
        " proxy would.",
    )
    prefer: Literal["natural", "in_use"] | dict[Selector, float] | None = Field(
        default=None,
        description="Of the mixtures that the runs cannot tell from the best, take the nearest to the `natural` one,"
        " to the one `in_use`, or to a mixture: the weight of each domain.",
    )
    anchors: list[AnchorsRequest] = Field(
        default_factory=list,
        max_length=8,
        description="Trained after the swarm, to tell what the proxies' gains are worth at the `target`.",
    )
    swarms: list[Annotated[str, Field(max_length=64)]] = Field(
        default_factory=list,
        max_length=100,
        description="Whose runs are the evidence: nothing is sampled or trained. Without tasks all that they measured"
        " counts.",
    )
    same_proxy: bool = Field(
        default=False, description="That the swarms trained one proxy though it is not told alike."
    )
    tasks: list[TaskRequest] = Field(default_factory=list, max_length=1000)
    aggregate: Literal["mean", "worst_family"] = Field(
        default="mean", description="What is minimised: the weighted mean, or the worst family's."
    )
    shares: list[ShareRequest] = Field(default_factory=list, max_length=200)
    guard_rails: list[GuardRailRequest] = Field(default_factory=list, max_length=1000)
    reuse: ReuseRequest | None = Field(
        default=None,
        description="`auto` when left out and an ancestor of the revision has a proposed mixture, else nothing.",
    )

    @field_validator("strengths")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1] <= 1e6:
            raise ValueError("strengths must rise from above 0")
        return value
