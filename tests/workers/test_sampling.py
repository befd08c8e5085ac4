"""What sampling refuses where the token counts were not known when the optimization was asked for."""

from typing import Any

import pytest

from mixing.errors import Infeasible
from workers.jobs import sample_swarm

SPEC: dict[str, Any] = {
    "method": "olmix",
    "kl_weight": 0.0,
    "repetition_price": 0.0,
    "temperature": None,
    "recipe": {
        "sampler": "two-level-dirichlet",
        "regression": "log-linear",
        "granularity": "per task",
        "solver": "exact",
    },
    "tokens": {"books": 10_000, "code": 400_000, "web": 1_000_000},
    "round": 0,
    "rounds": [8],
    "seed": 0,
    "target_tokens": 1_000_000,
    "repetition_cap": 4.0,
    "strengths": [0.1, 5.0],
    "tasks": [],
    "aggregate": "mean",
    "guard_rails": [],
    "runs": [],
    "reuse": None,
    "proxy_tokens": 65_536,
    "shards": {},
    "vocabulary_size": 512,
}


def share(name: str, domains: list[str], minimum: float) -> dict[str, Any]:
    return {"name": name, "domains": domains, "minimum": minimum, "maximum": None}


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ([share("prose", ["books", "web"], 0.7), share("much code", ["code"], 0.4)], {"prose", "much code"}),
        ([share("many books", ["books"], 0.1)], {"many books", "books"}),  # 4 epochs are .04
    ],
)
def test_shares_in_conflict_are_named_before_anything_is_trained(
    shares: list[dict[str, Any]], names: set[str]
) -> None:
    with pytest.raises(Infeasible) as conflict:
        sample_swarm.execute({**SPEC, "shares": shares}, lambda progress: None)
    assert set(conflict.value.names) == names


def test_shares_that_agree_are_kept_by_every_run_where_they_are_of_one_domain() -> None:
    sampled = sample_swarm.execute(
        {**SPEC, "shares": [share("some code", ["code"], 0.2)]}, lambda progress: None
    )
    assert len(sampled["runs"]) == 8
    assert min(run["weights"]["code"] for run in sampled["runs"]) >= 0.2 - 1e-9
