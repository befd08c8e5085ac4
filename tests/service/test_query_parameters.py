"""A query parameter that a route does not declare is refused, and so is one given twice."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

Document = dict[str, Any]


def operations(client: TestClient) -> list[tuple[str, str, list[str]]]:
    """Method, an address and the declared query parameters of every operation there is."""
    paths: dict[str, Document] = client.get("/v1/openapi.json").json()["paths"]
    return [
        (
            method,
            re.sub(r"{.*?}", "1", path),
            [one["name"] for one in what.get("parameters", ()) if one["in"] == "query"],
        )
        for path, item in paths.items()
        for method, what in item.items()
    ]


def test_every_operation_refuses_an_unknown_parameter_and_names_the_nearest(client: TestClient) -> None:
    every = operations(client)
    assert len(every) > 25
    for method, path, declared in every:
        for name in declared:
            misspelt = name.replace("_", "") if "_" in name else name[:-1]
            answer = client.request(method, path, params={misspelt: "1"})
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown_parameter"), (method, path)
            assert answer.json()["field"] == misspelt
            assert repr(name) in answer.json()["detail"]
        answer = client.request(method, path, params={"zzz": "1"})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_parameter"), (method, path)


def test_a_misspelt_dry_run_starts_nothing(client: TestClient, optimization: Document) -> None:
    answer = client.post("/v1/optimizations?dryrun=true", json=optimization)
    assert (answer.status_code, answer.json()["field"]) == (422, "dryrun")
    assert "did you mean 'dry_run'?" in answer.json()["detail"]
    assert client.get("/v1/optimizations").json()["items"] == []


def test_a_parameter_given_twice_is_refused(client: TestClient) -> None:
    answer = client.get("/v1/runs?limit=1&limit=2")
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (
        422,
        "duplicate_parameter",
        "limit",
    )


def test_nobody_learns_a_routes_parameters_without_a_token(client: TestClient) -> None:
    assert client.get("/v1/runs?zzz=1", headers={"Authorization": "Bearer wrong"}).status_code == 401


@pytest.mark.parametrize("path", ["/?aftr=x", "/workers?aftr=x", "/login?nxt=/"])
def test_pages_refuse_them_too(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert "did you mean" in answer.text
