"""The fully open pools and quality upsampling, as a user of the service has them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scipy.integrate import quad

from mixing.domains import Domains
from mixing.question import Question
from mixing.solve.constraints import share_of
from mixing.swarm.sample import sample_round
from store.settings import Settings

Document = dict[str, Any]
CURVES = "/v1/quality-curves"
SCIENCE = {f"web:science:q{index}": 10_000_000 * (6 - index) for index in range(6)}
HEALTH = {"web:health:low": 30_000_000, "web:health:high": 10_000_000}
REQUEST: Document = {
    "tokens": {**SCIENCE, **HEALTH},
    "target_tokens": 1_000_000_000,
    "topics": [
        {"topic": "web:science", "target_tokens": 300_000_000, "buckets": list(SCIENCE)},
        {"topic": "web:health", "target_tokens": 50_000_000, "buckets": list(HEALTH)},
    ],
}


def curve_mean(curve: Document, low: float, high: float) -> float:
    """The mean of the published formula over quantiles, by quadrature."""
    start = curve["start"]

    def formula(x: float) -> float:
        above = x - start
        return curve["scale"] * above ** curve["exponent"] * math.exp(curve["rate"] * above)

    low = max(low, start)
    return quad(formula, low, high)[0] if high > low else 0.0


def test_buckets_are_read_as_the_formula_says(client: TestClient) -> None:
    """The integral of f is the target over the available tokens; the best bucket's mean is at most M."""
    response = client.post(CURVES, json=REQUEST)
    assert response.status_code == 200, response.text
    for curve, topic in zip(response.json()["curves"], REQUEST["topics"], strict=True):
        available = [REQUEST["tokens"][name] for name in topic["buckets"]]
        total = sum(available)
        assert (curve["topic"], curve["tokens"]) == (topic["topic"], total)
        assert curve_mean(curve, 0, 1) == pytest.approx(topic["target_tokens"] / total, rel=1e-8)
        edge = 0.0
        for bucket, tokens in zip(curve["buckets"], available, strict=True):
            following = edge + tokens / total
            mean = curve_mean(curve, edge, following) / (tokens / total)
            assert bucket["factor"] == pytest.approx(mean, rel=1e-7, abs=1e-9)
            assert bucket["read_tokens"] == pytest.approx(mean * tokens, rel=1e-7, abs=1e-3)
            edge = following
        assert [bucket["domain"] for bucket in curve["buckets"]] == topic["buckets"]
        factors = [bucket["factor"] for bucket in curve["buckets"]]
        assert factors == sorted(factors)
        assert factors[-1] <= 7 + 1e-9
        assert sum(bucket["ratio"] for bucket in curve["buckets"]) == pytest.approx(1)


def test_the_shares_of_an_answer_pin_the_buckets_in_an_optimization(
    client: TestClient, write_corpus: Callable[..., str]
) -> None:
    """With the largest factor at the cap no bucket is above its own."""
    tokens = {**SCIENCE, "books": 2_000_000_000, "code": 1_000_000_000}
    domains = [
        {"name": name, "files": [write_corpus(name.replace(":", "-"))], "tokens": count}
        for name, count in tokens.items()
    ]
    assert client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201
    topic = {**REQUEST["topics"][0], "target_tokens": 330_000_000}
    request = {"domain_set": "pool", "target_tokens": 1_000_000_000, "largest_factor": 4, "topics": [topic]}
    answer = client.post(CURVES, json=request)
    assert answer.status_code == 200, answer.text
    curve, shares = answer.json()["curves"][0], answer.json()["shares"]
    assert curve["buckets"][-1]["factor"] == pytest.approx(4)
    optimization = {
        "domain_set": "pool",
        "target_tokens": 1_000_000_000,
        "repetition_cap": 4,
        "proxy": {"tokens": 100_000},
        "shares": shares,
    }
    made = client.post("/v1/optimizations", json=optimization)
    assert made.status_code == 202, made.text
    swarm = sample_round(
        Question(
            domains=Domains.of(tokens),
            rounds=(12,),
            target_tokens=1e9,
            constraints=tuple(
                share_of(share["domains"], sorted(tokens), share["minimum"], share["maximum"])
                for share in shares
            ),
        )
    )
    for run in swarm:
        for bucket in curve["buckets"]:
            assert run.mixture[bucket["domain"]] == pytest.approx(bucket["ratio"] * 0.33, abs=1e-9)
    assert np.std([run.mixture["books"] for run in swarm]) > 0.01
    response = client.post("/v1/optimizations", json={**optimization, "repetition_cap": 3})
    assert (response.status_code, response.json()["code"]) == (422, "infeasible")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"tokens": None}, "invalid_request", None),
        ({"domain_set": "pool"}, "invalid_request", None),
        ({"tokens": SCIENCE}, "unknown_domain", "topics[1].buckets[0]"),
        ({"target_tokens": 349_999_999}, "target_too_small", "target_tokens"),
        ({"topics": [REQUEST["topics"][0]] * 2}, "duplicate_topic", "topics[0].topic"),
        ({"largest_factor": 1.0}, "infeasible", "topics[0].target_tokens"),
        (
            {"topics": [{**REQUEST["topics"][1], "buckets": ["web:health:low"] * 2}]},
            "duplicate_domain",
            "topics[0].buckets[1]",
        ),
    ],
)
def test_what_cannot_be_answered_names_the_field(
    client: TestClient, change: Document, code: str, field: str | None
) -> None:
    response = client.post(CURVES, json={**REQUEST, **change})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code), problem
    assert field in (None, problem["field"])


def test_a_target_out_of_reach_is_told_the_largest_that_is_not(client: TestClient) -> None:
    topic = {**REQUEST["topics"][1], "target_tokens": 10**9}
    request = {**REQUEST, "topics": [topic]}
    problem = client.post(CURVES, json=request).json()
    assert (problem["code"], problem["names"]) == ("infeasible", ["web:health"])
    for target, status in ((problem["largest_target"], 200), (problem["largest_target"] + 10, 422)):
        request["topics"] = [{**topic, "target_tokens": target}]
        assert client.post(CURVES, json=request).status_code == status


def test_every_pool_can_be_posted_once_its_text_is_there(client: TestClient, settings: Settings) -> None:
    listed = client.get("/v1/pools").json()["items"]
    assert {pool["name"] for pool in listed} == {"dolma3", "olmoe_mix", "dolmino_olmoe"}
    for summary in listed:
        pool = client.get(f"/v1/pools/{summary['name']}").json()
        body = pool["domain_set"]
        missing = client.post("/v1/domain-sets", json=body)
        assert (missing.status_code, missing.json()["field"]) == (422, "domains[0].files[0]")
        for domain in body["domains"]:
            (pattern,) = domain["files"]
            folder = Path(pattern).parent
            folder.mkdir(parents=True)
            texts = (f"{domain['name']} {index} " * 40 for index in range(300))
            (folder / "part.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        made = client.post("/v1/domain-sets", json=body)
        assert made.status_code == 201, made.text
        assert (
            made.json()["tokens"] == summary["tokens"] == sum(source["tokens"] for source in pool["sources"])
        )
        assert made.json()["pool"] == summary["name"]


def test_a_pool_tells_its_published_mix_and_what_that_reads(client: TestClient) -> None:
    """Olmo 3's report: 6T tokens, 76.1% of them of a Common Crawl of 8.14T."""
    pool = client.get("/v1/pools/dolma3").json()
    crawl = next(source for source in pool["sources"] if source["name"] == "common_crawl")
    assert crawl["weight"] == pytest.approx(0.761, abs=1e-3)
    assert crawl["epochs"] == pytest.approx(0.761 * 6e12 / 8.14e12, rel=1e-3)
    assert crawl["natural"] == pytest.approx(8.14 / 9.31, rel=5e-3)
    assert sum(source["weight"] for source in pool["sources"]) == pytest.approx(1)
    assert client.get("/v1/pools/dolma4").json()["code"] == "pool_not_found"


def test_other_domains_are_no_pool(client: TestClient, domain_set: Document) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).json()["pool"] is None
