"""Headers that lie change nothing, and every answer has the ones that protect a browser."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.http.guards import HEADERS
from service.processes.address import listen
from store.settings import Settings
from tests.hostile.conftest import problem, still_answers
from tests.service.conftest import TOKEN

LIES = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Port": "443",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-User": "operator",
    "X-Original-URL": "/v1/launches",
    "X-Rewrite-URL": "/v1/launches",
    "X-HTTP-Method-Override": "DELETE",
    "X-Real-IP": "127.0.0.1",
    "Forwarded": "for=127.0.0.1;host=evil.example;proto=https",
    "Remote-User": "operator",
}


def test_who_asks_and_where_from_is_not_taken_from_headers(client: TestClient) -> None:
    assert client.get("/v1/runs", headers={**LIES, "Authorization": ""}).status_code == 401
    answer = client.post("/login", data={"token": TOKEN}, headers=LIES, follow_redirects=False)
    assert answer.headers["location"] == "/"
    assert "secure" not in answer.headers["set-cookie"].lower()
    assert "evil" not in str(answer.headers)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1.evil.example", "", "x"])
def test_no_other_origin_writes(client: TestClient, origin: str) -> None:
    for path in ("/v1/domain-sets", "/v1/launches", "/v1/optimizations/x:cancel"):
        answer = client.post(path, json={}, headers={"Origin": origin})
        assert (answer.status_code, problem(answer)["code"]) == (403, "cross_origin")
    still_answers(client)


def test_every_kind_of_answer_has_the_security_headers(client: TestClient) -> None:
    @client.app.get("/v1/broken")  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    def broken() -> None:
        raise RuntimeError("what nobody should read")

    answers = {
        200: client.get("/healthz"),
        303: client.get("/", headers={"Authorization": ""}, follow_redirects=False),
        307: client.get("/v1/runs/", follow_redirects=False),
        400: client.get("/", headers={"Host": "evil.example"}),
        401: client.get("/v1/runs", headers={"Authorization": ""}),
        403: client.post("/v1/mixtures", headers={"Origin": "http://evil.example"}),
        404: client.get("/nowhere"),
        405: client.delete("/v1/runs"),
        413: client.post("/v1/mixtures", content=b"x" * 2**21),
        422: client.post("/v1/mixtures", json=[]),
        500: client.get("/v1/broken"),
    }
    for status, answer in answers.items():
        assert answer.status_code == status, answer.text
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (status, name)
        assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'none'")
    assert answers[500].json()["code"] == "internal_error"
    assert "what nobody should read" not in answers[500].text


@pytest.fixture
def served(client: TestClient, settings: Settings, request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of the application behind the web process's own server, configured as there."""
    from service.processes.web import server_config

    app: FastAPI = client.app  # pyright: ignore[reportAssignmentType]
    trusted = settings.model_copy(update={"trusted_proxies": getattr(request, "param", "")})
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(server_config(app, trusted))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        deadline = time.monotonic() + 60
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def ask(port: int, headers: dict[str, str], path: str = "/login") -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(("served", "believed"), [("", False), ("127.0.0.1", True)], indirect=["served"])
def test_forwarded_headers_are_believed_only_of_a_trusted_proxy(served: int, believed: bool) -> None:
    answer = ask(served, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"})
    assert (answer.getheader("strict-transport-security") is not None) == believed
    refused = ask(served, {"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"})
    assert refused.status == 400
    assert answer.getheader("server") is None
    for attempt in range(20):  # each claims another address
        headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": f"192.0.2.{attempt}"}
        status = ask(served, headers, "/v1/runs").status
        assert status == (401 if believed or attempt < 10 else 429)


def test_bytes_that_are_no_http_get_an_answer_and_end_the_connection(served: int) -> None:
    import socket

    for sent in (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"POST /v1/mixtures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/mixtures HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    ):
        with socket.create_connection(("127.0.0.1", served), timeout=60) as connection:
            answer = b""
            with suppress(ConnectionError):  # closed without having read all of it
                connection.sendall(sent)
                with suppress(OSError):  # "not connected", where it was closed already
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65_536):
                    answer += part
        assert b" 200 " not in answer.split(b"\r\n")[0], sent[:60]
    assert ask(served, {}, "/healthz").status == 200


@pytest.mark.parametrize("kinds", [("application/json", "text/plain"), ("text/plain", "application/json")])
def test_two_content_types_do_not_switch_the_checks_of_a_body_off(
    client: TestClient, kinds: tuple[str, str]
) -> None:
    body = b'{"domain_set": "pool", "domain_set": "other", "name": "x", "weights": {"a": 1.0}}'
    headers = [("Content-Type", kind) for kind in kinds]
    answer = client.post("/v1/mixtures", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "repeated_header")
    assert answer.json()["field"] == "content-type"


@pytest.mark.parametrize("name", ["Authorization", "Idempotency-Key", "Origin", "Content-Length"])
def test_a_header_that_decides_is_given_once(client: TestClient, name: str) -> None:
    answer = client.get("/v1/runs", headers=[(name, "1"), (name, "2")])
    assert (answer.status_code, answer.json()["code"]) == (400, "repeated_header")
