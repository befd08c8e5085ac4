"""What a number on a page is measured in: BPB, an accuracy, or a mean of both, which has no name."""

from collections.abc import Iterable, Mapping
from typing import Any

from service.dashboard.formatting import bpb

Document = Mapping[str, Any]

BPB, ACCURACY = "BPB", "accuracy"


def is_higher_better(told: Document) -> bool:
    """Of a task, a family or an objective of the evidence; documents from before there were accuracies do not say."""
    return told.get("direction", "lower") == "higher"


def unit_of(told: Document) -> str:
    """The unit of a task, a family or an objective of the evidence; empty where it has no name."""
    return told.get("unit", BPB) or ""


def in_unit(value: float | None, unit: str) -> str:
    """A number with its unit behind it."""
    return f"{bpb(value)} {unit}".rstrip()


def objective_unit(settings: Document) -> str:
    """The unit of the objective that an optimization or a launch was asked for."""
    units = {
        ACCURACY if task.get("metric") == "accuracy" else BPB
        for task in settings["tasks"]
        if task["weight"] > 0
    }
    return BPB if not units else units.pop() if len(units) == 1 else ""


def unit_of_metric(name: str, settings: Document) -> str:
    """The unit of a metric of a run by its name: a task, its other metric, or a held-out slice."""
    task, _, series = name.rpartition("/")
    metrics = {one["name"]: one.get("metric", "bpb") for one in settings["tasks"]}
    metric = series if task in metrics else metrics.get(name, "bpb")
    return ACCURACY if metric == "accuracy" else BPB


def minimised(metrics: Mapping[str, float], higher: Iterable[str]) -> dict[str, float]:
    """Measured metrics as the objective averages them: an accuracy as its error rate."""
    turned = set(higher)
    return {name: 1 - value if name in turned else value for name, value in metrics.items()}
