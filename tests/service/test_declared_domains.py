"""Domain sets without a corpus: what their tokens say is all there is."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient

from store import jobs
from store.settings import Settings
from tests.working import work

Document = dict[str, Any]
DECLARED: Document = {
    "name": "pool",
    "domains": [
        {"name": "web:news", "tokens": 6_000_000, "size_bytes": 25_000_000},
        {"name": "web:forums", "tokens": 3_000_000},
        {"name": "books", "tokens": 1_000_000},
    ],
}


def test_declared_tokens_are_the_natural_distribution_and_the_caps(
    client: TestClient, settings: Settings
) -> None:
    made = client.post("/v1/domain-sets", json=DECLARED)
    assert made.status_code == 201, made.text
    revision = made.json()
    assert (revision["state"], revision["tokens"]) == ("succeeded", 10_000_000)
    assert {domain["state"] for domain in revision["domains"]} == {"succeeded"}
    question = {"domain_set": "pool", "method": "natural", "target_tokens": 20_000_000, "repetition_cap": 4}
    asked = client.post("/v1/optimizations", json=question).json()
    assert work(settings) == [jobs.SOLVE], "nothing is counted, sampled or trained"
    found = client.get(f"/v1/optimizations/{asked['id']}").json()
    assert found["state"] == "succeeded", found["failure"]
    mixture = client.get(f"/v1/mixtures/{found['mixture_id']}").json()
    assert mixture["weights"] == {"books": 0.1, "web:forums": 0.3, "web:news": 0.6}
    # 4 epochs of 1M tokens within 20M
    caps = {row["name"]: row["cap"] for row in mixture["evidence"]["domains"]}
    assert abs(caps["books"] - 0.2) < 1e-12
    made = client.get(f"/v1/mixtures/{found['mixture_id']}/export", params={"format": "csv"}).json()
    epochs = {row["name"]: row["epochs"] for row in made["realised"]["domains"]}
    assert epochs == {"books": 2.0, "web:forums": 2.0, "web:news": 2.0}
    for page in (f"/optimizations/{asked['id']}", "/domain-sets/pool"):
        assert client.get(page).status_code == 200


def test_nothing_can_be_trained_on_what_is_only_declared(client: TestClient) -> None:
    client.post("/v1/domain-sets", json=DECLARED)
    question = {"domain_set": "pool", "target_tokens": 1_000_000, "proxy": {"tokens": 65_536}}
    refused = client.post("/v1/optimizations", json=question).json()
    assert (refused["code"], refused["field"]) == ("no_corpus", "proxy")
    weights = {"books": 0.5, "web:forums": 0.25, "web:news": 0.25}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    launch = {"mixture_id": mixture["id"], "size": "nano-0.1M", "tokens": 65_536}
    refused = client.post("/v1/launches", json=launch).json()
    assert (refused["code"], refused["field"]) == ("no_corpus", "mixture_id")


def test_a_domain_without_files_says_how_large_it_is(client: TestClient) -> None:
    body = {**DECLARED, "domains": [{"name": "a"}, {"name": "b", "tokens": 5}]}
    refused = client.post("/v1/domain-sets", json=body)
    assert refused.status_code == 422
    assert "give its files, or without any its tokens" in refused.text


def test_domains_with_and_without_files_are_not_mixed(
    client: TestClient, write_corpus: Callable[..., str]
) -> None:
    with_files = {"name": "code", "files": [write_corpus("code")]}
    body = {**DECLARED, "domains": [*DECLARED["domains"], with_files]}
    refused = client.post("/v1/domain-sets", json=body).json()
    assert (refused["code"], refused["names"][-1]) == ("mixed_corpus", "books")


def test_a_revision_of_declared_domains_tells_what_changed_by_names_and_tokens(client: TestClient) -> None:
    client.post("/v1/domain-sets", json=DECLARED)
    patch = {
        "add": [{"name": "code", "tokens": 2_000_000}],
        "revise": [{"name": "books", "tokens": 1_500_000}],
        "split": [
            {
                "domain": "web:news",
                "into": [{"name": "web:old", "tokens": 2_000_000}, {"name": "web:new", "tokens": 4_000_000}],
            }
        ],
    }
    made = client.post("/v1/domain-sets/pool/revisions", json={"patch": patch})
    assert made.status_code == 201, made.text
    changes = made.json()["changes"]
    assert (changes["added"], changes["revised"]) == (["code"], ["books"])
    assert {old: set(parts) for old, parts in changes["split"].items()} == {
        "web:news": {"web:old", "web:new"}
    }
    assert (changes["kept"], made.json()["state"]) == (1, "succeeded")


def test_tasks_are_held_against_text_only_where_there_is_some(client: TestClient, settings: Settings) -> None:
    path = settings.data_directory / "corpora" / "task.jsonl"
    path.write_text('{"context": "2 + 2 =", "continuation": " 4"}\n' * 3)
    refused = client.post(
        "/v1/domain-sets", json={**DECLARED, "tasks": [{"name": "sums", "path": str(path)}]}
    )
    assert (refused.json()["code"], refused.json()["field"]) == ("no_corpus", "tasks")
