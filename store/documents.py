"""What is stored of optimizations, launches and what their runs measured: typed documents, told to jobs as they are.

An older row is read with defaults for what it lacks: what every order meant before a thing could be said. What an
optimization is asked, `OptimizationDocument`, knows the parts of the mathematics by name, and refuses one that is
gone; what is trained for it, its `SwarmDocument`, is read without them, so that it can be looked at for ever.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from mixing.document import Document, Documented, from_document, to_document
from mixing.objective import ObjectiveSpec, Task, objective_of
from mixing.terms import ReusePlan, Terms
from proxy_models.config import TrainingSettings

if TYPE_CHECKING:  # a process that only passes jobs on need not load the mathematics
    from mixing.domains import Domains
    from mixing.question import Question
    from mixing.reuse.reuse import Reuse
    from mixing.solve.constraints import LinearConstraint
    from proxy_models.text.task_file import MetricName
    from store.tables import Launch, Optimization, Swarm

VERSION: Final = 3
"""Of the documents; rows from before there was one are version 1. Up to 2 the KL weight is in the metric's unit."""


@dataclass(frozen=True, kw_only=True)
class TaskDocument(Task):
    """A task with its file, as it was when it was posted.

    Attributes:
        path: of the file, resolved; empty of a task that is measured elsewhere.
        normalization: what the log-likelihood of a choice is divided by before ranking; None without choices.
        examples: how many there are.
        size_bytes: of the file, or of its text where that is more.
        digest: SHA-256 of its content, and of ``fields`` where there are any.
        warnings: what is doubtful about the examples.
        fields: where its records have what is scored (`text.task_file.TaskFields`), if that is said.
    """

    path: str = ""
    normalization: str | None = None
    examples: int | None = None
    size_bytes: int | None = None
    digest: str | None = None
    warnings: tuple[str, ...] = ()
    fields: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """Equal for the same examples."""
        return self.digest or self.path or self.name

    @property
    def scored(self) -> "MetricName":
        """What is scored on its file."""
        return "accuracy" if self.metric == "accuracy" else "bpb"

    @property
    def measure(self) -> dict[str, str]:
        """As `proxy_models.training.run_spec.TaskSpec` reads it."""
        return {
            name: said for name in ("metric", "normalization") if (said := getattr(self, name)) is not None
        }


@dataclass(frozen=True, kw_only=True)
class ModelDocument:
    """Which model: a size, an architecture, or what a saved one is; ``start_content`` is what that held then."""

    size: str | None = None
    architecture: Mapping[str, Any] | None = None
    start: str | None = None
    start_content: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingDocument(ModelDocument, TrainingSettings):
    """Which model, and how it is trained.

    ``repetition_cap`` is the epochs at which the sampler refuses a domain; None for none.
    """

    repetition_cap: float | None = None

    def whole_steps(self, tokens: int) -> int:
        """What a run that is to train so many tokens really trains."""
        return tokens // self.tokens_per_step * self.tokens_per_step

    @property
    def rows(self) -> int:
        """Rows a run of `tokens` trains, each of one domain's text."""
        return self.whole_steps(self.tokens) // self.sequence_length

    @property
    def chosen(self) -> dict[str, Any]:
        """The fields of a `TrainingConfig`; its seed is each run's own."""
        return {name: getattr(self, name) for name in TRAINING}


MODEL: Final = tuple(part.name for part in fields(ModelDocument))
TRAINING: Final = tuple(part.name for part in fields(TrainingSettings))


@dataclass(frozen=True, kw_only=True)
class EngineDocument:
    """How a full run's processes share its model (`proxy_models.training.distributed.Engine`)."""

    sharding: str = "ddp"
    micro_batch_rows: int | None = None
    recompute: bool = False
    compiled: bool = False


@dataclass(frozen=True, kw_only=True)
class KeepingDocument:
    """What a full run measures and keeps on the way (`proxy_models.training.run_spec.Keeping`)."""

    evaluate_every: int | None = None
    checkpoints: int = 1
    models: bool = False
    average: int = 0


@dataclass(frozen=True, kw_only=True)
class LaunchDocument(TrainingDocument):
    """`Launch.settings`: what is trained on a mixture, by whom, and what is measured on it.

    Attributes:
        version: of the document.
        launcher: the built-in trainer, on one process or as many as the operator said, or a program of theirs.
        engine: of the built-in trainer; None for its one process as it is.
        keeping: what the built-in trainer measures and keeps on the way; None for what a proxy run does.
        name: given to the program; None for the launch's id.
        callback: the address that is told of its end.
        series: the first of the launches that were asked for together, one a budget and seed; None of one alone.
        seed: of the run.
        tasks: what is measured.
        aggregate: how the tasks are taken together.
        warnings: what was doubtful about it when it was asked for.
    """

    version: int = 1
    launcher: str = "built-in"
    engine: EngineDocument | None = None
    keeping: KeepingDocument | None = None
    name: str | None = None
    callback: str | None = None
    series: str | None = None
    seed: int = 0
    tasks: tuple[TaskDocument, ...] = ()
    aggregate: str = "mean"
    warnings: tuple[str, ...] = ()

    @property
    def is_program(self) -> bool:
        """Whether a program of the operator's trains it, and not we."""
        return self.launcher != "built-in" and self.engine is None

    @classmethod
    def of(cls, row: "Launch") -> Self:
        """A row's."""
        return from_document(cls, row.settings)


@dataclass(frozen=True, kw_only=True)
class ReuseDocument:
    """What an optimization goes on from.

    Attributes:
        asked: kind, start, freed domains and whether older runs may count.
        mixture: id of the one gone on from; None where there is none.
        runs: ids of the older runs that count.
        plan: what is frozen, trained and reused.
    """

    asked: Mapping[str, Any] = field(default_factory=dict)
    mixture: str | None = None
    runs: tuple[str, ...] = ()
    plan: ReusePlan = field(default_factory=ReusePlan)


@dataclass(frozen=True, kw_only=True)
class AnchorsDocument:
    """Runs of one other size or length than the swarm's, trained after it.

    Attributes:
        runs: how many.
        proxy: the model, and how it is trained.
        parameters: of the model, embeddings and head not counted.
        round: the number they are sampled under; None for one after the swarm's, in the order of the anchors.
    """

    runs: int
    proxy: TrainingDocument
    parameters: int
    round: int | None = None


@dataclass(frozen=True, kw_only=True)
class LookDocument:
    """What a rule to stop by said before a round (`mixing.swarm.sample.Stopping`).

    Attributes:
        round: that would be sampled next.
        runs: that had been measured.
        expected_regret: of what would have been proposed by them, in the objective's unit.
        noise: of one run's objective; None where that of a task is not known.
        met: what of the rule was met; None for nothing.
        can_be_met: whether it may be by the runs that were planned.
        saved: runs that were planned and are not trained, for it was met.
    """

    round: int
    runs: int
    expected_regret: float
    noise: float | None = None
    met: str | None = None
    can_be_met: bool = True
    saved: int = 0


@dataclass(frozen=True, kw_only=True)
class SwarmDocument:
    """Of `Optimization.settings` what is trained for it.

    Attributes:
        version: of the document.
        runs: of the whole swarm.
        rounds: how many of them each round trains; 0 for one that was not worth training, or was the anchors'.
        minimum_runs: fewest that must succeed.
        tasks: what every run is measured on.
        aggregate: "mean" or "worst_family".
        proxy: the model every run trains, and how; None where nothing is trained here.
        reuse: None without.
        trained: "here" or "elsewhere".
        proxy_name: what is trained elsewhere, in the words of whoever trains it.
        run_tokens: what a whole run trains elsewhere, where that was said.
        run_parameters: of a whole run's model, embeddings and head not counted, where there is a target.
        anchors: trained after the rounds, each as a round of its own.
        swarms: ids of those whose runs are the evidence; nothing is sampled then.
        looks: what the rule to stop by said, round by round.
        extensions: how often rounds were added after an answer.
    """

    version: int = 1
    runs: int = 0
    rounds: tuple[int, ...] = ()
    minimum_runs: int = 0
    tasks: tuple[TaskDocument, ...] = ()
    aggregate: str = "mean"
    proxy: TrainingDocument | None = None
    reuse: ReuseDocument | None = None
    trained: str = "here"
    proxy_name: str | None = None
    run_tokens: int | None = None
    run_parameters: int | None = None
    anchors: tuple[AnchorsDocument, ...] = ()
    swarms: tuple[str, ...] = ()
    looks: tuple[LookDocument, ...] = ()
    extensions: int = 0

    @property
    def is_elsewhere(self) -> bool:
        """Whether its runs wait for results instead of workers."""
        return self.trained == "elsewhere"

    @property
    def all_rounds(self) -> tuple[int, ...]:
        """Runs of every round, those of the anchors among them."""
        found = dict(enumerate(self.rounds))
        found |= {self._round(number): anchors.runs for number, anchors in enumerate(self.anchors)}
        return tuple(found[number] for number in sorted(found))

    def _round(self, number: int) -> int:
        """Under which the anchors of that number are sampled."""
        own = self.anchors[number].round
        return len(self.rounds) + number if own is None else own

    def anchors_of(self, round_: int) -> AnchorsDocument | None:
        """What a round's runs are where they are anchors."""
        return next(
            (anchors for number, anchors in enumerate(self.anchors) if self._round(number) == round_), None
        )

    @property
    def stopped(self) -> LookDocument | None:
        """Why the last planned rounds are not trained; None where they are."""
        last = self.looks[-1] if self.looks else None
        return None if last is None or last.met is None or any(self.rounds[last.round :]) else last

    def looked(self, look: LookDocument) -> Document:
        """What of the document is another once a rule to stop by has been asked."""
        if look.met is None:
            return {"looks": to_document((*self.looks, look))}
        kept, saved = self.rounds[: look.round], self.rounds[look.round :]
        look = replace(look, saved=sum(saved))
        return {
            "looks": to_document((*self.looks, look)),
            "rounds": [*kept, *(0 for _ in saved)],
            "runs": sum(kept),
        }

    def extended(self, rounds: Sequence[int]) -> Document:
        """What of it is another once rounds are added after an answer; those of anchors keep their numbers."""
        anchors = [replace(one, round=self._round(number)) for number, one in enumerate(self.anchors)]
        before = [0] * (max((one.round or 0 for one in anchors), default=-1) + 1 - len(self.rounds))
        every = [*self.rounds, *before, *rounds]
        return {
            "rounds": every,
            "runs": sum(every),
            "anchors": to_document(anchors),
            "extensions": self.extensions + 1,
        }

    def proxy_of(self, round_: int) -> TrainingDocument | None:
        """The model that the runs of a round train; None where nothing is trained here."""
        anchors = self.anchors_of(round_)
        return self.proxy if anchors is None else anchors.proxy

    @property
    def whole_run(self) -> int | None:
        """Tokens that a run trains where it is not made shorter; None where nobody said."""
        return self.run_tokens if self.proxy is None else self.proxy.tokens

    @classmethod
    def of(cls, row: "Optimization") -> Self:
        """A row's; before version 2 method and seed were in its columns alone."""
        return from_document(cls, {**row.settings, "method": row.method, "seed": row.seed})


@dataclass(frozen=True, kw_only=True)
class BroughtDocument:
    """`Swarm.brought`: what was said of runs that were sampled and trained elsewhere.

    Attributes:
        name: of the swarm.
        proxy_name: what was trained, in words; runs of one swarm have one proxy.
        parameters: of its model, embeddings and head not counted.
        tokenizer: what it reads, in words.
        higher_is_better: patterns of the metrics that are better when higher.
        lower_is_better: patterns of those that are not, though their names look like it.
        notes: on how tables were read.
    """

    name: str | None = None
    proxy_name: str | None = None
    parameters: int | None = None
    tokenizer: str | None = None
    higher_is_better: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, swarm: "Swarm") -> Self:
        """A swarm's; where it was sampled here, nothing."""
        return from_document(cls, swarm.brought or {})


@dataclass(frozen=True, kw_only=True)
class ShareDocument:
    """A range, or a pin, for what some domains weigh together."""

    name: str
    domains: tuple[str, ...]
    minimum: float | None = None
    maximum: float | None = None

    @classmethod
    def of(cls, share: "LinearConstraint") -> "ShareDocument":
        """Of a share as the mathematics has it."""
        stored = {"minimum": share.lower, "maximum": share.upper}
        bounds = {name: bound for name, bound in stored.items() if abs(bound) != float("inf")}
        return cls(name=share.name, domains=tuple(sorted(share.coefficients)), **bounds)


@dataclass(frozen=True, kw_only=True)
class OptimizationDocument(SwarmDocument, Terms, Documented):
    """`Optimization.settings`: the terms of the question, and what the store adds to them.

    Attributes:
        shares: with their groups resolved to domains.
    """

    shares: tuple[ShareDocument, ...] = ()

    def objective(self, domains: Sequence[str]) -> ObjectiveSpec:
        """What is minimised over these domains; raises MixingError as `mixing.objective.objective_of`."""
        is_worst = self.aggregate == "worst_family"
        return objective_of(self.tasks, domains, self.parts.granularity, worst_family=is_worst)

    def question(self, domains: "Domains", reuse: "Reuse", unmeasured: Collection[str] = ()) -> "Question":
        """The question over counted domains, with what the plan came to; raises MixingError as a `Question`.

        ``unmeasured`` domains are too small for a held-out slice.
        """
        measured = [name for name in domains.names if name not in unmeasured]
        from mixing.question import Question
        from mixing.solve.constraints import share_of

        return Question(
            **{term.name: getattr(self, term.name) for term in fields(Terms)},
            domains=domains,
            constraints=tuple(
                share_of(share.domains, domains.names, share.minimum, share.maximum, share.name)
                for share in self.shares
            ),
            objective={} if self.recipe is None else self.objective(measured),
            proxy_tokens=self.whole_run,
            proxy_parameters=self.run_parameters,
            reuse=reuse,
        )


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """`Run.result`: what training answered, without its series; of a program of the operator's only how it ended.

    Attributes:
        final: each task's metric after the last step.
        further: the other metric of tasks with choices.
        noise: standard deviation of either over the run's evaluations, where it has two or more.
        realised_tokens: what was trained on by domain, and `tokens` all of it; None before the run has ended.
        seconds: of training, in all attempts.
        parameters, non_embedding_parameters: of the model.
        average: what the mean of the last evaluations' models measured.
        exit_status: of a program, and `notes` on the files of results that it left.
    """

    final: Mapping[str, float] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    realised_tokens: Mapping[str, int] | None = None
    tokens: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    non_embedding_parameters: int | None = None
    average: Mapping[str, float] = field(default_factory=dict)
    exit_status: int | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> "Measurements":
        """Of a run's result; with nothing in it where there is none yet."""
        given = stored or {}
        return from_document(cls, {name: value for name, value in given.items() if value is not None})

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric by name."""
        return {**self.final, **self.further}

    @property
    def realised_weights(self) -> dict[str, float] | None:
        """Counted tokens per domain as fractions."""
        if not self.realised_tokens:
            return None
        total = sum(self.realised_tokens.values())
        return {name: tokens / total for name, tokens in self.realised_tokens.items()}
