"""Methods of several rounds, of two budgets, of entropies and of no training: real text, the real supervisor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.processes.serving import LocalService

pytestmark = pytest.mark.end_to_end

Document = dict[str, Any]
ENDED = ("succeeded", "failed", "cancelled")
DOMAINS = ("code:small", "code:tables", "manual")
PROXY = {
    "size": "nano-0.1M",
    "tokens": 16_384,
    "sequence_length": 64,
    "batch_rows": 4,
    "evaluations": 2,
}
STEP = PROXY["sequence_length"] * PROXY["batch_rows"]
TARGET, CAP = 200_000, 3.0
ASKED: dict[str, Document] = {
    "uniform": {"repetition_cap": CAP},
    "bimix": {"proxy": PROXY},
    "climb": {"proxy": PROXY, "repetition_cap": CAP, "runs": 14},
    "autoscale": {"proxy": PROXY},
    "mixwright": {
        "proxy": PROXY,
        "runs": 12,
        "target": {"size": "nano-1M"},
        "anchors": [{"runs": 3, "size": "nano-0.2M", "tokens": 24_576}],
    },
}


def post_all(client: Client, corpora: Path) -> dict[str, str]:
    """The domain set and an optimization of it by each method; answers their ids."""
    files = {name: str(corpora / f"{name.replace(':', '-')}.jsonl") for name in DOMAINS}
    client.create_domain_set(
        {
            "name": "library",
            "tokenizer": {"vocabulary_size": 512},
            "held_out_fraction": 0.1,
            "evaluation_bytes": 2048,
            "domains": [{"name": name, "files": [file]} for name, file in files.items()],
        }
    )
    task = {"name": "manual", "path": str(corpora / "manual-task.jsonl")}
    ids = {}
    for method, settings in ASKED.items():
        tasks = {"tasks": [task]} if method in ("climb", "autoscale", "mixwright") else {}
        asked = {"domain_set": "library", "method": method, "target_tokens": TARGET, "seed": 5}
        ids[method] = client.create_optimization({**asked, **settings, **tasks})["id"]
    return ids


def answer_of(client: Client, optimization_id: str) -> tuple[Document, list[Document], Document]:
    """The optimization, its runs in order with their mixtures, and the proposed mixture."""
    found = client.optimization(optimization_id)
    assert found["state"] == "succeeded", found["failure"]
    runs = [client.run(run["id"]) for run in client.runs(found["swarm_id"])] if found["swarm_id"] else []
    return found, runs, client.mixture(found["mixture_id"])


def caps_of(client: Client) -> dict[str, float]:
    """The largest weight of each domain: CAP epochs of its counted tokens."""
    return {one["name"]: CAP * one["tokens"] / TARGET for one in client.revision("library")["domains"]}


def check_feasible(weights: Document, caps: Document) -> None:
    assert set(weights) == set(DOMAINS)
    assert sum(weights.values()) == pytest.approx(1.0)
    for name, weight in weights.items():
        assert 0.0 <= weight <= caps[name] + 1e-9, name


def check_uniform(client: Client, optimization_id: str) -> None:
    """A baseline trains nothing and still is within its caps."""
    found, runs, mixture = answer_of(client, optimization_id)
    assert (found["swarm_id"], runs) == (None, [])
    assert (found["progress"]["runs"]["total"], found["progress"]["tokens_trained"]) == (0, 0)
    caps = caps_of(client)
    check_feasible(mixture["weights"], caps)
    free = {weight for name, weight in mixture["weights"].items() if weight < caps[name] - 1e-9}
    assert max(free) == pytest.approx(min(free)), "below their caps all weigh the same"


def check_climb(client: Client, optimization_id: str) -> None:
    """Three rounds, each sampled after the one before was trained, all under the caps and all different."""
    found, runs, mixture = answer_of(client, optimization_id)
    rounds = found["settings"]["rounds"]
    assert len(rounds) == 3
    assert [run["round"] for run in runs] == [
        number for number, size in enumerate(rounds) for _ in range(size)
    ]
    caps = caps_of(client)
    for run in runs:
        check_feasible(run["weights"], caps)
        assert run["requested_tokens"] == run["tokens"] == PROXY["tokens"]
    check_feasible(mixture["weights"], caps)
    assert len({tuple(sorted(run["weights"].items())) for run in runs}) == len(runs)
    for number in (1, 2):
        before = sum(run["seconds"] for run in runs if run["round"] == number - 1)
        first = [min(run["created_at"] for run in runs if run["round"] == at) for at in (number - 1, number)]
        assert first[0] < first[1]
        assert before > 0
    assert mixture["evidence"]["runs_used"] == len(runs)


def check_autoscale(client: Client, optimization_id: str) -> None:
    """At half the proxy's tokens and at all of them: the base, and each domain's tokens times 3 and times 1/3."""
    found, runs, mixture = answer_of(client, optimization_id)
    natural = client.mixture(found["natural_mixture_id"])["weights"]
    for number, budget in enumerate((PROXY["tokens"] / 2, PROXY["tokens"])):
        batch = [run for run in runs if run["round"] == number]
        factors = [1.0, *(1 + share * weight for weight in natural.values() for share in (2, -2 / 3))]
        wanted = sorted(budget * factor for factor in factors)
        assert sorted(run["requested_tokens"] for run in batch) == pytest.approx(wanted, abs=1)
        base = min(batch, key=lambda run: abs(run["requested_tokens"] - budget))
        assert base["weights"] == pytest.approx(natural, abs=1e-6)
    for run in runs:
        assert 0 <= run["requested_tokens"] - run["tokens"] < STEP, "whole steps of what was asked for"
    check_feasible(mixture["weights"], dict.fromkeys(DOMAINS, 1.0))
    assert mixture["evidence"]["objective"]["gain_interval"] is None, "no run can be left out"


def check_bimix(client: Client, optimization_id: str) -> None:
    """Four runs, one for each entropy, fitted to each domain's own held-out loss."""
    _, runs, mixture = answer_of(client, optimization_id)
    assert [run["round"] for run in runs] == [0] * 4
    assert len({tuple(sorted(run["weights"].items())) for run in runs}) == 4
    for run in runs:
        # Encoding tables repeat themselves where the manual's prose does not.
        assert run["weights"]["code:tables"] < run["weights"]["manual"]
        check_feasible(run["weights"], dict.fromkeys(DOMAINS, 1.0))
    tasks = {task["name"] for task in mixture["evidence"]["tasks"] if task["weight"] > 0}
    assert tasks == {f"held-out/{name}" for name in DOMAINS}
    check_feasible(mixture["weights"], dict.fromkeys(DOMAINS, 1.0))


def check_anchored(client: Client, optimization_id: str) -> None:
    """The anchors are trained after the swarm, larger and longer, and tell what its gains are worth at the target."""
    found, runs, mixture = answer_of(client, optimization_id)
    proxies, anchors = runs[:12], runs[12:]
    assert {run["round"] for run in proxies} == {0}
    assert [run["round"] for run in anchors] == [1] * 3
    assert {run["tokens"] for run in anchors} == {24_576}
    small, larger = ({run["non_embedding_parameters"] for run in those} for those in (proxies, anchors))
    assert max(small) < min(larger)
    assert anchors[0]["weights"] == pytest.approx(client.mixture(found["natural_mixture_id"])["weights"])
    assert found["progress"]["runs"]["total"] == 15
    evidence = mixture["evidence"]
    assert evidence["runs_used"] == 12
    at_target = evidence["at_target"]
    assert (at_target["transfer"], at_target["anchors"]) == ("measured", 3)
    low, high = at_target["objective"]["interval"]
    assert low < at_target["objective"]["gain"] < high
    assert found["to_know"] is None


def test_every_kind_of_method_does_what_it_says(
    tmp_path: Path, start_service: Callable[[str], LocalService], eventually: Callable[..., Any]
) -> None:
    service = start_service("methods")
    with Client(service.url, service.token) as client:
        ids = post_all(client, tmp_path / "methods" / "corpora")
        for optimization_id in ids.values():
            eventually(lambda one=optimization_id: client.optimization(one)["state"] in ENDED, "an end")
        check_uniform(client, ids["uniform"])
        check_bimix(client, ids["bimix"])
        check_climb(client, ids["climb"])
        check_autoscale(client, ids["autoscale"])
        check_anchored(client, ids["mixwright"])
