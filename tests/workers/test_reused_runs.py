"""What a solve job makes of a plan that keeps every ratio."""

from typing import Any

import pytest

from store.documents import OptimizationDocument
from store.question import JobQuestion
from workers.jobs import solve

PLANNED: dict[str, Any] = {
    "groups": {"kept": {"books": 0.25, "web": 0.75}},
    "new_runs": 0,
    "recomputed": [],
}
ASKED: dict[str, Any] = {
    "method": "olmix",
    "recipe": {
        "sampler": "two-level-dirichlet",
        "regression": "log-linear",
        "granularity": "per task",
        "solver": "exact",
    },
    "rounds": [],
    "seed": 0,
    "strengths": [0.1, 5.0],
    "kl_weight": 0.0,
    "repetition_price": 0.0,
    "tasks": [],
    "aggregate": "mean",
    "shares": [],
    "guard_rails": [],
    "proxy": {"tokens": 65_536},
    "target_tokens": 1_000_000,
    "repetition_cap": 4.0,
    "temperature": None,
    "reuse": {"runs": [], "plan": PLANNED},
}


def test_with_every_ratio_kept_nothing_is_fitted_and_the_ratios_are_the_mixture() -> None:
    document = OptimizationDocument.from_dict(ASKED)
    question = JobQuestion(document=document, tokens={"books": 400_000, "web": 1_000_000})
    evidence = solve.execute(question.to_dict(), lambda _: None)["evidence"]
    assert evidence["weights"] == pytest.approx({"books": 0.25, "web": 0.75})
    assert evidence["objective"] is None
    assert evidence["runs_lost"] == []
