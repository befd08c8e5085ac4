"""What the runs measured beside what was predicted of each by a law that had not seen it."""

from typing import Any

import numpy as np

from mixing.laws.learning import Learned
from mixing.question import Question
from mixing.sense import Sense, sense_of

Document = dict[str, Any]


def held_out(question: Question, learned: Learned, most: int = 20) -> Document:
    """The held-out runs: predicted and measured, of the objective and of the tasks that count for most in it.

        held_out(question, Judge.of(question, runs).learned)["objective"]["predicted"]

    A run is predicted once a division into folds, and what is said is the mean. Values are as they are measured, in
    one order of J runs; `moved` is the share of a run's mixture that lies elsewhere than in the natural one.

    Args:
        question: what was asked of the runs.
        learned: what was fitted for it.
        most: tasks.
    """
    evidence, refits, error = learned.evidence, learned.refits, learned.held_out
    if refits is None or error is None:
        return {"runs": 0, "moved": [], "objective": None, "tasks": []}
    spec, measured = question.specification, evidence.groups.with_value(refits.measured)
    predicted = error.predictions.mean(axis=0)
    scores = zip(error.rank_correlation.tolist(), error.mae.tolist(), strict=True)
    scored = [(_finite(rank), _finite(mae)) for rank, mae in scores]

    def column(name: str, index: int, sense: Sense, weight: float | None, noise: float) -> Document:
        rank, mae = scored[index]
        return {
            "name": name,
            "weight": weight,
            "unit": sense.unit,
            "direction": sense.direction,
            "rank_correlation": rank,
            "mae": mae,
            "noise": _finite(noise),
            "predicted": [sense.measured(value) for value in predicted[:, index].tolist()],
            "measured": [
                None if np.isnan(value) else sense.measured(value) for value in measured[:, index].tolist()
            ],
        }

    share = evidence.objective
    counted = sense_of(spec, [task for task, own in zip(evidence.tasks, share, strict=True) if own > 0])
    first = sorted(range(len(evidence.tasks)), key=lambda index: (-share[index], evidence.tasks[index]))[
        :most
    ]
    return {
        "runs": len(measured),
        "moved": (np.abs(refits.weights - question.domains.natural_weights).sum(axis=1) / 2).tolist(),
        "objective": column("objective", -1, counted, None, float("nan")),
        "tasks": [
            column(
                evidence.tasks[index],
                index,
                sense_of(spec, [evidence.tasks[index]]),
                float(share[index]),
                float(evidence.noise[index]),
            )
            for index in first
        ],
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
