"""What an accuracy over few questions needs before a regression reads it, and how far it may be off."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
ACCURACY = "accuracy"


def _questions(tasks: Sequence[Document]) -> dict[str, int]:
    """Task -> how many questions its accuracy is the share of, for those measured so."""
    return {task["name"]: task["examples"] for task in tasks if task.get("metric") == ACCURACY}


def for_laws(metrics: Mapping[str, float], tasks: Sequence[Document]) -> dict[str, float]:
    """The metrics of a run with a perfect accuracy half a question short of it.

    The laws predict error rates above 0, and over n questions nothing tells an error of 0 from one of 1 / (2 n).
    """
    most = {name: 1 - 0.5 / count for name, count in _questions(tasks).items()}
    return {name: min(value, most.get(name, math.inf)) for name, value in metrics.items()}


def with_standard_errors(evidence: dict[str, Any], spec: Document) -> dict[str, Any]:
    """The evidence with each accuracy's number of questions, binomial standard error, and a note on perfect ones.

    The error sqrt(p (1 - p) / n), at the mean p of the runs, is that of the questions as a sample of all there could
    be. The runs answer the same ones, so between two of them it counts less; their own noise is told beside it.
    """
    counts = _questions(spec["tasks"])
    runs = [*spec["runs"], *((spec["reuse"] or {}).get("runs") or ())]
    measured = {name: [run["metrics"][name] for run in runs if name in run["metrics"]] for name in counts}
    for task in evidence["tasks"]:
        if values := measured.get(task["name"]):
            p = sum(values) / len(values)
            task["questions"] = counts[task["name"]]
            task["standard_error"] = math.sqrt(p * (1 - p) / counts[task["name"]])
    notes = [
        f"{sum(value == 1 for value in values)} of {len(values)} runs answered every question of {name}; they count"
        f" as half a question short of it."
        for name, values in measured.items()
        if 1 in values
    ]
    return {**evidence, "notes": [*evidence["notes"], *notes]}
