"""The page of an optimization: its documents, joined and put in the order they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from service.dashboard.comparison import Comparison, compare, worst_value
from service.dashboard.effects_table import EffectsTable, effects_table
from service.dashboard.gain_chart import gain_chart
from service.dashboard.measures import ACCURACY, minimised, objective_unit
from service.dashboard.mixture_chart import MOST_ROWS, mixture_chart
from service.dashboard.sentences import Verdict, measured_verdict, predicted_verdict, progress_sentence
from service.optimizations.plan_sentences import plan_sentences

Document = Mapping[str, Any]

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
