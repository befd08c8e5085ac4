import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

GOOD = {"web:news": 0.5, "web:forums": 0.3, "books": 0.2}
Document = dict[str, Any]


def post(client: TestClient, weights: dict[str, Any]) -> Document:
    # Not `json=`: the standard encoder of the client refuses NaN, a hostile client does not.
    body = json.dumps({"domain_set": "pool", "name": "mine", "weights": weights})
    response = client.post("/v1/mixtures", content=body, headers={"Content-Type": "application/json"})
    return {"status": response.status_code, **response.json()}


def test_a_mixture_keeps_its_weights_by_name(client: TestClient, optimization: Document) -> None:
    created = post(client, GOOD)
    assert created["status"] == 201
    assert created["weights"] == pytest.approx(GOOD)
    shuffled = post(client, dict(reversed(GOOD.items())))
    assert shuffled["weights"] == created["weights"]


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"web:news": 0.5, "web:forums": 0.3, "boks": 0.2}, "boks"),
        ({"web:news": 0.7, "web:forums": 0.3}, "books"),
        ({"web:news": 0.5, "web:forums": 0.3}, "lacks a weight for books"),
        ({"web:news": 0.5, "web:forums": 0.3, "books": "0.2"}, "weights.books"),
        ({"web:news": 0.0, "web:forums": 0.0, "books": True}, "weights.books"),
        ({"web:news": 0.9, "web:forums": 0.3, "books": -0.2}, "books"),
        ({"web:news": 0.5, "web:forums": 0.3, "books": 0.3}, "1.1"),
        ({"web:news": 0.5, "web:forums": 0.5, "books": float("nan")}, "books"),
        ({"web:news": 0.5, "web:forums": 0.5, "books": float("inf")}, "books"),
    ],
)
def test_bad_weights_name_the_domain_and_store_nothing(
    client: TestClient, optimization: Document, weights: dict[str, float], named: str
) -> None:
    problem = post(client, weights)
    assert problem["status"] == 422
    assert named in problem["detail"]
    assert client.get("/v1/mixtures").json()["items"] == []


def test_a_launch_over_its_cap_names_the_domain(client: TestClient, optimization: Document) -> None:
    mixture_id = post(client, GOOD)["id"]
    # 0.2 of a million tokens from the 10,000 of `books` are 20 epochs.
    launch = {"mixture_id": mixture_id, "size": "nano-1M", "tokens": 1_000_000, "repetition_cap": 4}
    response = client.post("/v1/launches", json=launch)
    assert (response.status_code, response.json()["code"]) == (422, "over_cap")
    assert "books" in response.json()["detail"]
    assert "20.00" in response.json()["detail"]
    assert client.get("/v1/launches").json()["items"] == []
    accepted = client.post("/v1/launches", json={**launch, "repetition_cap": 20})
    assert accepted.status_code == 202
    assert accepted.json()["state"] == "queued"


def test_a_launch_of_nothing_is_not_found(client: TestClient, optimization: Document) -> None:
    response = client.post(
        "/v1/launches", json={"mixture_id": "mix_none", "size": "nano-1M", "tokens": 10_000}
    )
    assert (response.status_code, response.json()["code"]) == (404, "mixture_not_found")
