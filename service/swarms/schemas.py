"""Requests and answers about swarms whose runs are trained elsewhere."""

from typing import Annotated, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from exchange.columns import Reading
from service.http.schemas import Name, RequestModel, Time, Weights
from service.optimizations.schemas import ProxyName, TaskName
from service.optimizations.views import RunCounts

RunName = Annotated[
    str,
    Field(
        min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$", description="Of a run, as you call it."
    ),
]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]
Tokens = Annotated[int | None, Field(gt=0, lt=2**63)]


class DirectionsRequest(RequestModel):
    """Which way metrics are better; lower, where nothing is said and no name looks like an accuracy."""

    higher_is_better: list[Pattern] = Field(
        default_factory=list, max_length=1000, description="Names or patterns: `*/acc`."
    )
    lower_is_better: list[Pattern] = Field(
        default_factory=list,
        max_length=1000,
        description="Of those that are not, though their names look like it.",
    )


class RunRequest(RequestModel):
    """A run that was trained elsewhere: what it was trained on and, as far as it is known, what it measured."""

    id: RunName
    weights: Weights = Field(min_length=1, max_length=20_000, description="Of every domain, summing to 1.")
    metrics: dict[TaskName, float] = Field(default_factory=dict, max_length=10_000)
    tokens: Tokens = Field(default=None, description="It trained.")
    seed: int | None = Field(default=None, ge=0, lt=2**63)


class TablesRequest(RequestModel):
    """Tables below a data root, read as by ``mixwright fit``: one with both, or weights and metrics joined by id."""

    weights: Path
    metrics: Path | None = None
    run_id: str | None = Field(default=None, max_length=255, description="The column of the run's id.")
    weight_columns: list[Pattern] = Field(default_factory=list, max_length=1000)
    metric_columns: list[Pattern] = Field(default_factory=list, max_length=1000)
    ignored: list[Pattern] = Field(default_factory=list, max_length=1000)
    run_tokens: str | None = Field(
        default=None,
        max_length=255,
        description="The column of how many tokens a run trained, if not `tokens`.",
    )
    run_parameters: str | None = Field(
        default=None, max_length=255, description="Of how many parameters its model has, if not `parameters`."
    )
    run_seed: str | None = Field(default=None, max_length=255, description="Of its seed, if not `seed`.")
    keep: dict[str, str] = Field(
        default_factory=dict, description="`{column: value}` of the rows that count."
    )
    phase: int | None = None
    phase_shares: list[float] = Field(default_factory=list, max_length=100)
    leave_out_runs: bool = Field(
        default=False, description="Those that cannot be read; they are named in the notes."
    )
    leave_out_cells: bool = Field(default=False, description="Each metric counts for the runs that have it.")

    @property
    def reading(self) -> Reading:
        """For the reader of tables."""
        return Reading(
            run_id=self.run_id,
            weights=tuple(self.weight_columns),
            metrics=tuple(self.metric_columns),
            ignored=tuple(self.ignored),
            run_tokens=self.run_tokens,
            run_parameters=self.run_parameters,
            run_seed=self.run_seed,
            keep=self.keep,
            phase=self.phase,
            phase_shares=tuple(self.phase_shares),
            without_faulty=self.leave_out_runs,
            with_gaps=self.leave_out_cells,
        )


class SwarmRequest(DirectionsRequest):
    """Runs that were sampled and trained elsewhere, over the domains of a revision."""

    domain_set: Name
    revision: int | None = Field(default=None, ge=1, lt=2**31, description="The latest when left out.")
    name: Name | None = None
    proxy_name: ProxyName | None = Field(
        default=None, description="What was trained, in words; all runs of a swarm are of one proxy."
    )
    parameters: int | None = Field(
        default=None,
        gt=0,
        lt=2**63,
        description="Of that model, embeddings and head not counted; an optimization with a `target` needs it.",
    )
    tokenizer: Name | None = Field(
        default=None, description="What it reads; swarms that name other ones are not taken together."
    )
    runs: list[RunRequest] = Field(default_factory=list, max_length=20_000)
    tables: TablesRequest | None = Field(default=None, description="Instead of runs.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.runs) == (self.tables is not None):
            raise ValueError("give either runs or tables")
        return self


class ResultRequest(RequestModel):
    """What became of a run; with weights it may be a new one of a swarm that was brought."""

    run: RunName = Field(description="Its id, or what it was called when it was brought.")
    metrics: dict[TaskName, float] = Field(default_factory=dict, max_length=10_000)
    failed: str | None = Field(default=None, min_length=1, max_length=2000, description="Why there is none.")
    weights: Weights | None = Field(default=None, max_length=20_000)
    realised_tokens: dict[str, Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        default_factory=dict,
        max_length=20_000,
        description="That its trainer drew of each domain, by its own rounding: the run counts as one of these.",
    )
    tokens: Tokens = None
    seed: int | None = Field(default=None, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.metrics) == (self.failed is not None):
            raise ValueError("give either metrics or why it failed")
        if self.failed is not None and self.weights is not None:
            raise ValueError("a run that failed is of no use; leave it out")
        return self


class ResultsRequest(DirectionsRequest):
    """Results as they come: a part of the runs, or a part of a run's metrics."""

    results: list[ResultRequest] = Field(default_factory=list, max_length=20_000)
    files: list[Path] = Field(
        default_factory=list,
        max_length=1000,
        description="Paths or patterns below a data root, of lm-eval, Hugging Face, TensorBoard, MLflow or tables; a "
        "run's files lie in a folder of its name. With the export's `realised.json` among them a run counts as the "
        "mixture its trainer draws.",
    )
    replace: bool = Field(default=False, description="Whether other values take the place of earlier ones.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.results and not self.files:
            raise ValueError("give results or files")
        return self

    @field_validator("results")
    @classmethod
    def _once(cls, value: list[ResultRequest]) -> list[ResultRequest]:
        names = [one.run for one in value]
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"run {repeated!r} is given twice")
        return value


class SwarmView(BaseModel):
    """Proxy runs over one revision: sampled for an optimization, or brought.

    ``trained`` is ``here``, ``elsewhere`` (sampled here), or ``brought``; ``proxy_name`` what was trained then.
    """

    id: str
    optimization_id: str | None
    name: str | None
    trained: str
    proxy_name: str | None
    domain_set: str
    revision: int
    runs: RunCounts
    tasks: list[str] = Field(description="What the optimization measures; empty where all that comes counts.")
    notes: list[str] = Field(description="On how the tables of a swarm that was brought were read.")
    created_at: Time


class TakenView(BaseModel):
    """A run that something was taken of: which metrics, and the state it came to."""

    run_id: str
    name: str | None
    metrics: list[str]
    state: str


class ResultsView(BaseModel):
    """What was taken; ``unchanged`` runs had all of it already, ``left_out`` is what files have beside it."""

    swarm: SwarmView
    taken: list[TakenView]
    unchanged: int
    left_out: list[str]
