"""Every address of the service wants the scope that the documentation says, and nothing is forgotten."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from service.dashboard.session import PageRoute
from service.tokens import Scope, granted

PUBLIC = {"/healthz", "/readyz", "/login", "/logout", "/v1/openapi.json"}


def operations(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of everything in the published document."""
    document = client.get("/v1/openapi.json").json()
    return [
        (method.upper(), path.replace("{number}", "1").replace("{", "").replace("}", ""))
        for path, methods in document["paths"].items()
        for method in methods
        if path not in PUBLIC
    ]


def as_user(client: TestClient, secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_launch_includes_write_and_write_includes_read() -> None:
    assert granted(["launch"]) == {Scope.READ, Scope.WRITE, Scope.LAUNCH}
    assert granted(["write"]) == {Scope.READ, Scope.WRITE}
    assert granted(["read"]) == {Scope.READ}
    assert granted([]) == set()
    with pytest.raises(ValueError, match="admin"):
        granted(["admin"])


@pytest.mark.parametrize("scope", ["read", "write", "launch"])
def test_every_operation_of_the_api_wants_its_scope(
    client: TestClient, run_tokens: Callable[..., str], scope: str
) -> None:
    headers = as_user(client, run_tokens("create", "user", "--scope", scope))
    found = operations(client)
    assert len(found) >= 25
    for method, path in found:
        is_launch = path.startswith("/v1/launches") and not path.endswith("/metrics")
        needed = Scope.READ if method == "GET" else Scope.LAUNCH if is_launch else Scope.WRITE
        # A stream that has no end would be read to it; who may ask is known before what is asked.
        asked = f"{path}?unknown=" if path == "/v1/events" else path
        answer = client.request(method, asked, headers=headers, json={} if method != "GET" else None)
        if needed in granted([scope]):
            assert answer.status_code not in (401, 403), (method, path)
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope"), (method, path)
            assert answer.json()["scope"] == needed.value
        anonymous = client.request(method, path, headers={"Authorization": ""})
        assert anonymous.status_code == 401, (method, path)


def test_every_page_wants_a_signed_in_browser(client: TestClient) -> None:
    from service.dashboard import downloads, home, pages

    routers = (pages._pages, home.router, downloads.router)
    found = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    assert len(found) >= 12
    assert all(isinstance(route, PageRoute) for route in found)
    client.headers["Authorization"] = ""
    for route in found:
        for method in route.methods or ():
            answer = client.request(method, route.path, follow_redirects=False)
            assert answer.headers["location"].startswith("/login?next=")


def test_a_reader_who_signed_in_cannot_write_by_cookie(
    client: TestClient, run_tokens: Callable[..., str]
) -> None:
    secret = run_tokens("create", "reader")
    client.headers["Authorization"] = ""
    assert client.post("/login", data={"token": secret}, follow_redirects=False).status_code == 303
    assert client.get("/").status_code == 200
    answer = client.post("/v1/mixtures", json={}, headers={"Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


def test_every_write_is_in_the_audit_log_with_who_did_it(
    client: TestClient,
    run_tokens: Callable[..., str],
    domain_set: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "mixwright.audit")
    alice = run_tokens("create", "alice", "--scope", "write")
    client.post("/v1/domain-sets", json=domain_set, headers=as_user(client, alice))
    client.post("/v1/domain-sets?dry=secret-in-a-query", json=domain_set, headers=as_user(client, alice))
    client.post("/v1/launches", json={}, headers=as_user(client, alice))
    client.post("/v1/mixtures", json={}, headers=as_user(client, "not-a-token"))
    client.get("/v1/mixtures")
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "mixwright.audit"]
    assert [(line["user"], line["path"], line["status"], line["made"]) for line in lines] == [
        ("alice", "/v1/domain-sets", 201, "/v1/domain-sets/pool/revisions/1"),
        ("alice", "/v1/domain-sets", 422, None),
        ("alice", "/v1/launches", 403, None),
        (None, "/v1/mixtures", 401, None),
    ]
    assert {line["client"] for line in lines} == {"testclient"}
    assert alice not in caplog.text
    assert "secret-in-a-query" not in caplog.text
