"""From the runs people have to a mixture with its evidence: what ``mixwright fit`` and `mixwright.fit` do."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from exchange.columns import Reading
from exchange.directions import against_their_names, check_one_direction, directions, named
from exchange.formats.base import Blend
from exchange.sheets import Sheet, listed, matches, read_sheet
from exchange.swarm import Swarm, read_swarm
from mixing.answer.proposal import Proposal, propose
from mixing.answer.whatif import expected_seconds, quick
from mixing.domains import Domains
from mixing.errors import InvalidSetting, InvalidTokens, MissingDomain
from mixing.methods import combine, method_named
from mixing.objective import ObjectiveSpec
from mixing.parts import REGRESSIONS
from mixing.question import Question
from mixing.runs.evidence import RunEvidence
from mixing.solve.constraints import share_of
from mixing.terms import TaskGuard


@dataclass(frozen=True)
class Asked(Reading):
    """What a mixture is asked for, beside how the tables are to be read.

    Attributes:
        objective: `{pattern of metrics: weight}`; empty for all metrics, each counting alike.
        families: `{family: patterns of its metrics}`; a family counts as one, by the mean of its metrics.
        higher_is_better: patterns of the metrics that are better when higher.
        lower_is_better: patterns of those that are not, though their names look like it.
        units: `{pattern of metrics: what they are measured in}`, for who reads the answer.
        tokens: `{domain or its column: available tokens}`, or a table of domains with their tokens (and documents,
            which some exports need): the natural distribution, and with the target's tokens the caps. Without it
            gains are against the mean of the runs.
        target_tokens: of the training run the mixture is for.
        repetition_cap: most epochs of a domain; needs both of the above.
        shares: `{domain or group: (least, most)}`.
        guard_rails: `{metric: by how much it may be worse than on the natural distribution}`.
        method: its name.
        regression: another law than the method's. Without one, an ensemble that would take more than some seconds
            gives way to the effective power law, and the notes say so.
        kl_weight: lambda of the KL term; None for the method's.
        prefer: "natural" or a mixture: of those that the runs cannot tell from the best, the nearest to it is taken.
        seed: of the folds and of a search.
    """

    objective: Mapping[str, float] = field(default_factory=dict)
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    higher_is_better: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    tokens: Any = None
    target_tokens: float | None = None
    repetition_cap: float | None = 4.0
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    guard_rails: Mapping[str, float] = field(default_factory=dict)
    method: str = "mixwright"
    regression: str | None = None
    kl_weight: float | None = None
    prefer: str | Mapping[str, float] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Fit:
    """A mixture, and everything known about it.

    Attributes:
        swarm: the runs as they were read.
        proposal: the answer.
        has_tokens: whether token counts were given; without them the natural distribution is the mean of the runs.
        has_target: whether the tokens of the training run were given.
        documents: of each domain, where the table of tokens has them.
        kind: the data frames' library that `weights` and `tasks` are made with.
    """

    swarm: Swarm
    proposal: Proposal
    has_tokens: bool
    has_target: bool
    documents: Mapping[str, float] = field(default_factory=dict)
    kind: Any = None

    @cached_property
    def document(self) -> dict[str, Any]:
        """JSON: weights by domain, the objective, every task, what binds, warnings and notes."""
        document = self.proposal.to_dict()
        document["labels"] = dict(self.swarm.labels)
        document["recipe"]["sampler"] = "as given"
        document["notes"] = [*self.swarm.notes, *self._on_tokens(), *document["notes"]]
        if not self.has_tokens:
            for row in document["domains"]:
                row.update(tokens=None, cap=None, epochs=None, natural_epochs=None)
        return document

    def to_dict(self) -> dict[str, Any]:
        """The document."""
        return self.document

    def blend(self, path: str = "", **run: Any) -> Blend:
        """The mixture for a trainer (`exchange.formats.export`), its domains called as the table calls them.

        Args:
            path: of a domain's files, with `{domain}` in it; empty where the format needs none.
            run: what else `Blend.of` takes, such as `sequence_length`.
        """
        rows, labels = self.document["domains"], self.swarm.labels
        question = self.proposal.question
        return Blend.of(
            {labels[row["name"]]: row["weight"] for row in rows},
            tokens={labels[row["name"]]: row["tokens"] for row in rows},
            documents={labels[name]: count for name, count in self.documents.items()},
            path=path,
            target_tokens=round(question.target_tokens) if self.has_target else None,
            repetition_cap=question.repetition_cap,
            **run,
        )

    @property
    def mixture(self) -> dict[str, float]:
        """`{domain: weight}`, summing to 1."""
        return self.document["weights"]

    @property
    def weights(self) -> Any:
        """A frame of a row a domain: its label in the table, its weights, and epochs and cap where they are known."""
        rows = sorted(self.document["domains"], key=lambda row: -row["weight"])
        names = ("name", "natural", "weight", "tokens", "epochs", "cap", "binding")
        columns = {name: [row[name] for row in rows] for name in names}
        return self._frame({"label": [self.swarm.labels[row["name"]] for row in rows], **columns})

    @property
    def tasks(self) -> Any:
        """A frame of a row a metric: its weight, predictions, gain with interval, and how well it is predicted."""
        rows = self.document["tasks"]
        names = ("name", "weight", "natural", "proposed", "gain", "rank_correlation", "mae")
        columns = {name: [row[name] for row in rows] for name in names}
        for end, name in enumerate(("gain_low", "gain_high")):
            bounds = [row["gain_interval"] for row in rows]
            columns[name] = [None if pair is None else pair[end] for pair in bounds]
        return self._frame(columns)

    def _frame(self, columns: Mapping[str, list[Any]]) -> Any:
        import narwhals as nw

        return nw.from_dict(columns, backend=self.kind or "pyarrow").to_native()

    def _on_tokens(self) -> list[str]:
        if self.has_tokens:
            return []
        return [
            "No token counts were given: 'natural' is the mean of the runs' mixtures, and nothing limits how often a"
            " domain is repeated."
        ]


Progress = Callable[[str, float], None]
"""Is told what is done now, in words, and about how many CPU seconds that takes."""


def fit(
    table: Any, metrics_table: Any = None, /, *, progress: Progress | None = None, **settings: Any
) -> Fit:
    """The best mixture by the runs of one table or two, with its evidence.

        answer = mixwright.fit(frame, weights=["train_*"], metrics=["eval/*"])
        answer.mixture, answer.weights, answer.tasks, answer.document["objective"]["gain_interval"]

    Args:
        table: a path or a data frame: a row a run, with the weights it trained on.
        metrics_table: likewise, what the runs measured, joined by the run's id; None where `table` has it.
        progress: is told before each step what it is and how long it takes, `print` for one.
        settings: what `Asked` names.

    Raises:
        InvalidSetting: no such setting; metrics of two directions and no objective; a direction that is unclear.
        InvalidTable, InvalidTokens, MissingDomain: the tables.
        TooFewRuns, InvalidMetrics, Infeasible, ...: as `mixing.answer.proposal.propose`.
    """
    known = {each.name for each in fields(Asked)}
    if stray := sorted(set(settings) - known):
        raise InvalidSetting(
            f"there is no setting {stray[0]!r}; there are {', '.join(sorted(known))}", field=stray[0]
        )
    asked = Asked(**settings)
    if asked.target_tokens is not None and not 0 < asked.target_tokens < math.inf:
        raise InvalidSetting(
            f"a training run of {asked.target_tokens:g} tokens cannot be", field="target_tokens"
        )
    tell = progress or (lambda what, seconds: None)
    kind = _kind_of(table)
    tell("reading the tables", 1.0)
    sheets = read_sheet(table), None if metrics_table is None else read_sheet(metrics_table)
    swarm = read_swarm(*sheets, asked)
    pool = {} if asked.tokens is None else _pool(swarm, asked.tokens)
    question = _question(swarm, pool, asked)
    documents = {name: count for name, (_, count) in pool.items() if count is not None}
    has_target = asked.target_tokens is not None
    if asked.regression is None:
        question, note = quick(question, swarm.runs)
        swarm = replace(swarm, notes=(*swarm.notes, *([note] if note else [])))
    if question.recipe is not None or method_named(asked.method).trains_runs:
        swarm = swarm.of_one_scale(REGRESSIONS[question.parts.regression].reads_tokens)
        size = len(swarm.runs), len(swarm.metrics)
        said = f"fitting {size[0]} runs of {size[1]} metrics by {question.parts.regression}"
        tell(said, expected_seconds(question, *size))
    proposal = propose(question, _over(question.domains, swarm))
    return Fit(swarm, proposal, bool(pool), has_target, documents, kind)


def _question(swarm: Swarm, pool: Mapping[str, tuple[float, float | None]], asked: Asked) -> Question:
    domains, method = _domains(swarm, pool), method_named(asked.method)
    capped = bool(pool) and asked.target_tokens is not None
    return Question(
        domains=domains,
        method=asked.method,
        recipe=None if asked.regression is None else combine(method, regression=asked.regression),
        objective=_objective(swarm, asked),
        target_tokens=asked.target_tokens or float(domains.tokens.sum()),
        repetition_cap=asked.repetition_cap if capped else None,
        constraints=tuple(
            share_of([group], domains.names, minimum=least, maximum=most)
            for group, (least, most) in asked.shares.items()
        ),
        guard_rails=tuple(
            TaskGuard(task, worse_than_natural=worse) for task, worse in asked.guard_rails.items()
        ),
        kl_weight=method.kl_weight if asked.kl_weight is None else asked.kl_weight,
        prefer=asked.prefer,
        seed=asked.seed,
    )


def _kind_of(frame: Any) -> Any:
    """The library of a data frame; None for a path."""
    import narwhals as nw

    known = nw.from_native(frame, eager_only=True, pass_through=True)
    return known.implementation if isinstance(known, nw.DataFrame) else None


def _pool(swarm: Swarm, given: Any) -> dict[str, tuple[float, float | None]]:
    """`{domain: (tokens, documents)}` of a mapping or a table, whether it names domains or their columns.

    Raises:
        InvalidTokens: what is no domain, or a table without a column of domains and one of tokens.
        MissingDomain: a domain without tokens.
    """
    counts = {name: (count, None) for name, count in given.items()} if isinstance(given, Mapping) else None
    counts = counts or _counts_of(read_sheet(given))
    called = swarm.aliases
    if stray := [name for name in counts if name not in called]:
        raise InvalidTokens(
            f"tokens are given for {listed(stray)}, which no run has; there are {listed(swarm.domains)}",
            field="tokens",
            names=stray,
        )
    pool = {called[name]: count for name, count in counts.items()}
    if missing := [name for name in swarm.domains if name not in pool]:
        raise MissingDomain(f"no tokens are given for {listed(missing)}", field="tokens", names=missing)
    return pool


def _domains(swarm: Swarm, pool: Mapping[str, tuple[float, float | None]]) -> Domains:
    """The swarm's domains with their tokens, or with the mean of the runs in their place."""
    if pool:
        return Domains.of({name: tokens for name, (tokens, _) in pool.items()})
    means = {
        name: math.fsum(run.mixture[name] for run in swarm.runs) / len(swarm.runs) for name in swarm.domains
    }
    return Domains.of({name: mean for name, mean in means.items() if mean > 0})


def _counts_of(sheet: Sheet) -> dict[str, tuple[float, float | None]]:
    counts = ("tokens", "documents")
    texts = [name for name in sheet.columns if name not in counts and not sheet.is_numeric(name)]
    if len(texts) != 1 or "tokens" not in sheet.columns:
        raise InvalidTokens(
            f"{sheet.source} needs a column of domains and one called tokens; it has {listed(sheet.columns)}",
            field="tokens",
        )
    has_documents = "documents" in sheet.columns
    return {
        str(name): (
            sheet.number(row, "tokens") or 0.0,
            sheet.number(row, "documents") if has_documents else None,
        )
        for row, name in enumerate(sheet.columns[texts[0]])
    }


def _over(domains: Domains, swarm: Swarm) -> list[RunEvidence]:
    """The runs, without the domains that none of them used where tokens are not known."""
    return [replace(run, mixture={name: run.mixture[name] for name in domains.names}) for run in swarm.runs]


def _objective(swarm: Swarm, asked: Asked) -> ObjectiveSpec:
    """What the metrics that were named, or all of them, are worth, with their directions.

    Raises:
        InvalidSetting: a pattern that stands for no metric; a direction that is unclear; an objective that was not
            named over metrics of both directions.
    """
    turns = directions(swarm.metrics, swarm.runs, asked.higher_is_better, asked.lower_is_better)
    tasks = dict.fromkeys(swarm.metrics, 1.0)
    if asked.objective:
        tasks = {}
        for pattern, weight in asked.objective.items():
            tasks |= dict.fromkeys(sorted(named(swarm.metrics, [pattern], "objective")), float(weight))
    else:
        check_one_direction(swarm.metrics, turns)
    families = {
        family: tuple(task for task in tasks if any(matches(task, each) for each in patterns))
        for family, patterns in asked.families.items()
    }
    return ObjectiveSpec(
        tasks,
        families=families,
        directions=dict.fromkeys(turns, "higher"),
        turned=turns,
        # A unit, though none, settles the direction of a name that says another.
        units=dict.fromkeys(against_their_names(swarm.metrics, turns), "")
        | _units(swarm.metrics, asked.units),
    )


def _units(metrics: Sequence[str], stated: Mapping[str, str]) -> dict[str, str]:
    return {name: unit for pattern, unit in stated.items() for name in named(metrics, [pattern], "units")}
