import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.settings import Settings

Document = dict[str, Any]


def refused(client: TestClient, request: Document) -> Document:
    response = client.post("/v1/optimizations", json=request)
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert client.get("/v1/optimizations").json()["items"] == []
    return {"status": response.status_code, **response.json()}


def test_an_optimization_is_accepted_and_queued(client: TestClient, optimization: Document) -> None:
    response = client.post("/v1/optimizations", json=optimization)
    assert response.status_code == 202, response.text
    body = response.json()
    assert response.headers["location"] == f"/v1/optimizations/{body['id']}"
    assert int(response.headers["retry-after"]) > 0
    assert body["state"] == "queued"
    assert body["stage"] == "prepare"
    assert body["settings"]["runs"] == 3 * (3 + 1)  # Olmix: 3 (m + 1)
    assert body["settings"]["kl_weight"] == 0.05  # Olmix: lambda
    assert body["progress"]["runs"]["total"] == 12


def test_an_unchanged_optimization_is_not_sent_again(client: TestClient, optimization: Document) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    tag = client.get(location).headers["etag"]
    assert client.get(location, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(location, headers={"If-None-Match": '"other"'}).status_code == 200


def test_an_unknown_method_lists_the_known_ones(client: TestClient, optimization: Document) -> None:
    problem = refused(client, {**optimization, "method": "alchemy"})
    assert (problem["status"], problem["field"]) == (422, "method")
    assert "alchemy" in problem["detail"]
    assert "olmix" in problem["detail"]


def test_too_few_runs_says_how_many_are_needed(client: TestClient, optimization: Document) -> None:
    problem = refused(client, {**optimization, "runs": 2})
    assert (problem["status"], problem["code"], problem["field"]) == (422, "too_few_runs", "runs")
    accepted = client.post("/v1/optimizations", json={**optimization, "runs": problem["needed"]})
    assert accepted.status_code == 202


def test_a_target_beyond_the_caps_says_how_much_is_missing(
    client: TestClient, optimization: Document
) -> None:
    # 1,110,000 tokens at most 4 times are 4,440,000; 5,000,000 want 140,000 more unique tokens.
    problem = refused(client, {**optimization, "target_tokens": 5_000_000})
    assert (problem["status"], problem["field"]) == (422, "target_tokens")
    assert "140,000" in problem["detail"]
    assert "4,440,000" in problem["detail"]
    assert client.post("/v1/optimizations", json={**optimization, "target_tokens": 4_440_000}).is_success


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"proxy": {"size": "giga", "tokens": 65_536}}, "proxy.size"),
        ({"proxy": {"size": "nano-0.1M", "tokens": 10}}, "proxy.tokens"),
        ({"proxy": {"size": "nano-0.1M", "tokens": 65_536, "learning_rate": -1}}, "proxy.learning_rate"),
        ({"target_tokens": 0}, "target_tokens"),
        ({"repetition_cap": 0}, "repetition_cap"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_bad_setting_is_named(
    client: TestClient, optimization: Document, change: Document, field: str
) -> None:
    problem = refused(client, {**optimization, **change})
    assert (problem["status"], problem["field"]) == (422, field)


def test_a_bad_task_file_names_the_task_and_the_line(
    client: TestClient, settings: Settings, optimization: Document
) -> None:
    path = settings.data_directory / "corpora" / "task.jsonl"
    good = json.dumps({"context": "2 + 2 =", "continuation": " 4"})
    path.write_text(good + "\n" + json.dumps({"context": "3 + 3 ="}) + "\n")
    problem = refused(client, {**optimization, "tasks": [{"name": "sums", "path": str(path)}]})
    assert (problem["status"], problem["field"]) == (422, "tasks[0].path")
    assert "sums" in problem["detail"]
    assert "line 2" in problem["detail"]


def test_an_unknown_domain_set_or_revision_is_not_found(client: TestClient, optimization: Document) -> None:
    assert refused(client, {**optimization, "domain_set": "nobody"})["status"] == 404
    assert refused(client, {**optimization, "revision": 7})["status"] == 404


def test_cancel_and_retry_follow_the_states(client: TestClient, optimization: Document) -> None:
    location = client.post("/v1/optimizations", json=optimization).headers["location"]
    assert client.post(f"{location}:retry").json()["code"] == "not_ended"
    assert client.post(f"{location}:cancel").json()["state"] == "cancelled"
    assert client.post(f"{location}:cancel").json()["code"] == "already_ended"
    assert client.post(f"{location}:retry").json()["state"] == "queued"


def test_a_repeated_request_makes_one_optimization(client: TestClient, optimization: Document) -> None:
    headers = {"Idempotency-Key": "once"}
    ids = {
        client.post("/v1/optimizations", json=optimization, headers=headers).json()["id"] for _ in range(3)
    }
    assert len(ids) == 1
    assert len(client.get("/v1/optimizations").json()["items"]) == 1
