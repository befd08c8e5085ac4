"""What is stored of an optimization: a typed document with a version, with defaults for what an older row lacks."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mixing.document import Document, from_document, to_document
from mixing.terms import Terms

if TYPE_CHECKING:  # a process that only passes jobs on need not load the mathematics
    from mixing.question import Question
    from mixing.reuse.reuse import Reuse
    from mixing.solve.constraints import LinearConstraint
    from store.tables import Optimization
from typing import Final

VERSION = 2
"""Of `OptimizationDocument`; rows from before there was one are version 1, and what they lack has its default."""


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
class OptimizationDocument(Terms):
    """`Optimization.settings`: the terms of the question, and what the store adds to them.

    Attributes:
        version: of the document.
        runs: of the whole swarm.
        minimum_runs: fewest that must succeed.
        shares: with their groups resolved to domains.
        tasks: with path, digest and number of examples.
        aggregate: "mean" or "worst_family".
        proxy: the model every run trains, and how; None where nothing is trained.
        reuse: what was asked for, the mixture gone on from, the older runs and the plan; None without.
    """

    version: int = 1
    runs: int = 0
    minimum_runs: int = 0
    shares: tuple[ShareDocument, ...] = ()
    tasks: tuple[Mapping[str, Any], ...] = ()
    aggregate: str = "mean"
    proxy: Mapping[str, Any] | None = None
    reuse: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, row: "Optimization") -> "OptimizationDocument":
        """A row's; before version 2 method and seed were in its columns alone."""
        return cls.from_dict({**row.settings, "method": row.method, "seed": row.seed})

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "OptimizationDocument":
        """What `to_dict` wrote, now or in an older version."""
        return from_document(cls, document)

    def to_dict(self) -> Document:
        """JSON, as stored."""
        return to_document(self)

    def question(self, tokens: Mapping[str, int | float], reuse: "Reuse") -> "Question":
        """The question over counted domains.

        Args:
            tokens: `{domain: N_j}`.
            reuse: what the plan came to.

        Raises:
            MixingError: as `mixing.question.Question`.
        """
        from mixing.domains import Domains
        from mixing.objective import objective_of
        from mixing.question import Question
        from mixing.solve.constraints import share_of

        domains = Domains.of(tokens)
        objective = {}
        if self.recipe is not None:
            worst = self.aggregate == "worst_family"
            objective = objective_of(self.tasks, domains.names, self.recipe.granularity, worst_family=worst)
        return Question(
            **{field.name: getattr(self, field.name) for field in fields(Terms)},
            domains=domains,
            constraints=tuple(
                share_of(share.domains, domains.names, share.minimum, share.maximum, share.name)
                for share in self.shares
            ),
            objective=objective,
            proxy_tokens=None if self.proxy is None else self.proxy["tokens"],
            reuse=reuse,
        )


# How a stored order says that a model is trained.

SAID_LATER: Final[Mapping[str, Any]] = {
    "attend_across_documents": True,
    "precision": "float32",
    "warmup_fraction": None,
    "floor_fraction": 0.05,
    "weight_decay": 0.1,
}
"""Settings that could not be chosen at first, and what orders that do not have them were trained with."""

TRAINING: Final = ("tokens", "sequence_length", "batch_rows", "learning_rate", "evaluations", *SAID_LATER)
"""The fields of `proxy_models.config.TrainingConfig` that an order chooses; the seed is each run's own."""


def training_values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What the order says, or meant before it could be said, of each of `TRAINING`; a program's says little."""
    said = {**SAID_LATER, **stored}
    return {name: said[name] for name in TRAINING if name in said}
