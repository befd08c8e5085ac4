"""The page of an optimization: its documents, joined and put in the order they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from service.dashboard.charts import MOST_ROWS, gain_chart, mixture_chart
from service.dashboard.comparison import Comparison, compare, worst_value
from service.dashboard.formatting import ACCURACY, is_higher_better, minimised, objective_unit
from service.dashboard.sentences import Verdict, measured_verdict, predicted_verdict, progress_sentence
from service.optimizations.cost import plan_sentences

Document = Mapping[str, Any]

STEP = 0.01
"""The change of weight the cells are about: a hundredth of the mixture."""
_SHADES = (1 / 12, 1 / 3, 2 / 3)
"""Shares of the task's largest effect from which a cell is shaded lightly, more and most."""


@dataclass(frozen=True, slots=True)
class Effect:
    """By how much the metric changes, and the style of its cell: ``better-1`` to ``worse-3``, or nothing."""

    value: float
    shade: str


@dataclass(frozen=True, slots=True)
class EffectsTable:
    """A column for each task of the objective and a row for each domain."""

    tasks: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Effect]]]


def effects_table(evidence: Document, domains: Sequence[str]) -> EffectsTable | None:
    """The table of a proposal's evidence with its rows in the order given; None where nothing was fitted."""
    effects: Mapping[str, Mapping[str, float]] = evidence.get("effects") or {}
    tasks = [task["name"] for task in evidence["tasks"] if task["weight"] > 0 and task["name"] in effects]
    if not tasks:
        return None
    higher = {task["name"] for task in evidence["tasks"] if is_higher_better(task)}
    largest = {task: max(abs(effects[task][domain]) for domain in domains) for task in tasks}
    rows = [
        (
            domain,
            [
                Effect(
                    STEP * effects[task][domain],
                    _shade(effects[task][domain] * (-1 if task in higher else 1), largest[task]),
                )
                for task in tasks
            ],
        )
        for domain in domains
    ]
    return EffectsTable(tasks, rows)


def _shade(effect: float, largest: float) -> str:
    strength = sum(abs(effect) > share * largest for share in _SHADES)
    return f"{'better' if effect < 0 else 'worse'}-{strength}" if strength else ""


LIVE = ("queued", "claimed", "running")
_HELD_OUT = "held-out/"


@dataclass(frozen=True, slots=True)
class Answer:
    """The proposed mixture with its evidence."""

    evidence: Document
    domains: Sequence[Document]
    objective_tasks: Sequence[Document]
    watched_tasks: Sequence[Document]
    verdict: Verdict
    chart: Markup
    undrawn: int
    effects: EffectsTable | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the launches found, beside what was predicted."""

    comparison: Comparison
    verdict: Verdict
    chart: Markup


@dataclass(frozen=True, slots=True)
class ReuseSection:
    """The plan of what is frozen, trained and reused."""

    plan: Document
    mixture_id: str | None
    sentences: Sequence[str]
    groups: Sequence[tuple[str, Sequence[tuple[str, float]]]]


@dataclass(frozen=True, slots=True)
class OptimizationPage:
    """Everything the template shows; it formats and decides nothing else."""

    optimization: Document
    sentence: str
    is_live: bool
    answer: Answer | None
    measured: Measured | None
    reuse: ReuseSection | None
    runs: Sequence[Document]
    runs_next: str | None
    launches: Sequence[Document]


def optimization_page(
    optimization: Document, mixture: Document | None, runs: Document, launches: Sequence[Document]
) -> OptimizationPage:
    """The page of the API's documents; ``mixture`` is None before there is one."""
    evidence = mixture["evidence"] if mixture else None
    comparison = compare(evidence, launches) if evidence else None
    settings = optimization["settings"]
    return OptimizationPage(
        optimization=optimization,
        sentence=progress_sentence(optimization),
        is_live=any(one["state"] in LIVE for one in (optimization, *launches)),
        answer=_answer(evidence) if evidence else None,
        measured=Measured(comparison, measured_verdict(comparison), gain_chart(comparison))
        if comparison
        else None,
        reuse=_reuse(settings.get("reuse")),
        runs=[{**run, "objective": objective_bpb(run["metrics"], settings)} for run in runs["items"]],
        runs_next=runs["next"],
        launches=[{**launch, "objective": objective_bpb(launch["metrics"], settings)} for launch in launches],
    )


def _reuse(settings: Document | None) -> ReuseSection | None:
    if settings is None:
        return None
    plan = settings["plan"]
    groups = [
        (name, sorted(ratios.items(), key=lambda item: (-item[1], item[0])))
        for name, ratios in sorted(plan["groups"].items())
    ]
    return ReuseSection(plan, settings["mixture"], list(plan_sentences(plan)), groups)


def objective_weights(document: Document) -> dict[str, float]:
    """Task -> weight in the objective; empty when it is the domains' own held-out slices."""
    return {task["name"]: float(task["weight"]) for task in document["settings"]["tasks"]}


def objective_bpb(metrics: Mapping[str, float], settings: Document) -> float | None:
    """The objective measured on one model, the mean or the worst family's as asked for; None before it was."""
    tasks = settings["tasks"] or [
        {"name": name, "weight": 1.0, "family": None} for name in metrics if name.startswith(_HELD_OUT)
    ]
    is_worst = settings.get("aggregate") == "worst_family"
    higher = [task["name"] for task in tasks if task.get("metric") == "accuracy"]
    families: dict[str, dict[str, float]] = {}
    for task in tasks:
        if task["weight"] > 0:
            family = (task.get("family") or task["name"]) if is_worst else "all"
            families.setdefault(family, {})[task["name"]] = float(task["weight"])
    value = worst_value(minimised(metrics, higher), list(families.values()))
    return 1 - value if value is not None and objective_unit(settings) == ACCURACY else value


def _answer(evidence: Document) -> Answer:
    domains = sorted(evidence["domains"], key=lambda domain: (-domain["weight"], domain["name"]))
    return Answer(
        evidence=evidence,
        domains=domains,
        objective_tasks=[task for task in evidence["tasks"] if task["weight"] > 0],
        watched_tasks=[task for task in evidence["tasks"] if task["weight"] <= 0],
        verdict=predicted_verdict(evidence),
        chart=mixture_chart(domains),
        undrawn=max(len(domains) - MOST_ROWS, 0),
        effects=effects_table(evidence, [domain["name"] for domain in domains]),
    )
