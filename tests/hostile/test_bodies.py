"""No body takes the service down, costs it more than its limits, or is read as something it does not say."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http import guards
from service.http.app import create_app
from service.optimizations import checks
from service.optimizations.schemas import OptimizationRequest
from service.tokens import ALL_SCOPES, Principal, Scope, create_token
from store.engine import Database
from store.problems import Invalid
from store.schema import upgrade
from store.settings import Settings
from tests.hostile.conftest import problem, still_answers
from tests.service.conftest import TOKEN

Document = dict[str, Any]
CREATES = [
    "/v1/domain-sets",
    "/v1/optimizations",
    "/v1/mixtures",
    "/v1/launches",
    "/v1/domain-sets/x/revisions",
]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


BODIES = {
    "nothing": b"",
    "null": b"null",
    "a string": b'"x"',
    "a number": b"1",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe\x00",
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "deep lists": b"[" * 400_000,
    "closed deep lists": b"[" * 1000 + b"]" * 1000,
    "deep objects": b'{"a":' * 100_000,
    "a deep member": b'{"name": ' + b"[" * 40 + b"]" * 40 + b"}",
    "a member twice": b'{"name": "a", "name": "b"}',
    "a member twice inside": b'{"weights": {"a": 0.5, "b": 0.5, "a": 0.1}}',
    "a member twice, spelled apart": b'{"n\\u0061me": "a", "name": "b"}',
    "half a surrogate pair twice": b'{"\\ud800": 1, "\\ud800": 2}',
    "NaN": b'{"weights": {"a": NaN}}',
    "infinity": b'{"tokens": Infinity}',
    "minus infinity": b'{"tokens": -Infinity}',
    "1e999": b'{"tokens": 1e999}',
    "a number of 100,000 digits": b'{"tokens": ' + b"9" * 100_000 + b"}",
    "a NUL": b'{"name": "a\\u0000b"}',
    "a NUL in a member's name": b'{"a\\u0000": 1}',
    "half a surrogate pair": b'{"name": "\\udfff"}',
    "a name of 900 kB": b'{"name": "' + b"x" * 900_000 + b'"}',
    "an unknown member of 900 kB": b'{"' + b"x" * 900_000 + b'": 1}',
    "a million nulls": b"[" + b"null," * 200_000 + b"null]",
    "prototypes": b'{"__proto__": {"x": 1}, "constructor": 1, "__class__": 1}',
}


@pytest.mark.usefixtures("untouched")
def test_no_body_is_more_than_a_4xx(client: TestClient) -> None:
    for what, body in BODIES.items():
        for path in CREATES:
            answer = client.post(path, content=body, headers=JSON)
            assert problem(answer)["status"] in (400, 404, 422), (what, path)
        problem(client.post("/v1/mixtures", content=body, headers={"Content-Type": "text/xml"}))
    still_answers(client)


CODES = {
    "deep lists": "too_deep",
    "closed deep lists": "too_deep",
    "a deep member": "too_deep",
    "a member twice": "duplicate_member",
    "a member twice inside": "duplicate_member",
    "a member twice, spelled apart": "duplicate_member",
    "half a surrogate pair twice": "duplicate_member",
    "a number of 100,000 digits": "bad_number",
    "a NUL": "bad_text",
    "a NUL in a member's name": "bad_text",
    "half a surrogate pair": "bad_text",
}


def test_what_can_be_read_two_ways_is_named(client: TestClient) -> None:
    found = {
        what: problem(client.post("/v1/mixtures", content=BODIES[what], headers=JSON))["code"]
        for what in CODES
    }
    assert found == CODES


def test_ten_megabytes_are_refused_announced_or_not(client: TestClient) -> None:
    def parts() -> Any:
        yield b'{"name": "'
        for _ in range(160):
            yield b"x" * 65_536
        yield b'"}'

    for content in (b"x" * 10_000_000, parts()):
        answer = client.post("/v1/domain-sets", content=content, headers=JSON)
        assert (answer.status_code, problem(answer)["code"]) == (413, "body_too_large")
    still_answers(client)


def status_of_a_body_in_parts(client: TestClient, token: str, *parts: bytes) -> tuple[int, int]:
    """The status of a request whose body comes in parts without an announced length, and how many were asked for."""
    waiting, seen = [*parts], []
    headers = {"host": "127.0.0.1", "content-type": "application/json", "transfer-encoding": "chunked"}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/mixtures",
        "raw_path": b"/v1/mixtures",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }

    async def receive() -> Document:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Document) -> None:
        seen.append(message)

    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    return seen[0]["status"], len(parts) - len(waiting)


def test_no_body_is_read_of_who_may_not_ask(client: TestClient, settings: Settings) -> None:
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url, connections=1)
    with database.write() as session:
        reader, writer = (create_token(session, scope, [scope]) for scope in (Scope.READ, Scope.WRITE))
    database.close()
    body = b'{"domain_set": "nobody",', b' "name": "mine", "weights": {"a": 1.0}}'
    assert status_of_a_body_in_parts(client, "", *body) == (401, 0)
    assert status_of_a_body_in_parts(client, reader, *body) == (403, 0)
    assert status_of_a_body_in_parts(client, writer, *body) == (404, 2)
    app: Any = client.app
    app.state.limits.charge(Principal("write", ALL_SCOPES, token_id="1"), 1e6)
    assert status_of_a_body_in_parts(client, writer, *body) == (429, 0)


def test_all_bodies_together_are_bounded_and_what_was_held_is_given_back(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MOST_BODIES", 0.0001)
    upgrade(settings.resolved_database_url)
    body = b'{"domain_set": "nobody", "name": "mine", "weights": {"a": 1.0}}'
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        for _ in range(3):
            answer = client.post("/v1/mixtures", content=body + b" " * 104, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            assert client.post("/v1/mixtures", content=body, headers=JSON).status_code == 404


def test_weights_that_are_none(client: TestClient, domain_set: Document) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    for weight in (1e308, -1.0, 2.0, -0.5, None, [], {}, "NaN", "infinity", 10**400):
        weights = {"books": weight, "web:news": 0.5, "web:forums": 0.5}
        problem(client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}))
    assert client.get("/v1/mixtures").json()["items"] == []


def test_sizes_that_are_none(client: TestClient, domain_set: Document) -> None:
    for tokens in (0, -1, 2**63, 10**30, 1.5, "1e9", 1e308):
        sizes = {"target_tokens": tokens, "repetition_cap": 4}
        sizes["proxy"] = {"size": "nano-0.1M", "tokens": 65_536}
        problem(client.post("/v1/optimizations", json={"domain_set": "pool", **sizes}))
        problem(client.post("/v1/launches", json={"mixture_id": "m", "size": "nano-0.1M", "tokens": tokens}))
        domain_set["domains"][0]["tokens"] = tokens
        problem(client.post("/v1/domain-sets", json=domain_set))
    still_answers(client)


def test_a_value_of_another_kind_is_none(client: TestClient, domain_set: Document) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    proxy = {"size": "nano-0.1M", "tokens": 65_536}
    sound = {"domain_set": "pool", "target_tokens": 2_000_000, "repetition_cap": 4, "proxy": proxy}
    for value in (True, False, "5", "2000000", 2_000_000.5, [2_000_000], {"tokens": 5}):
        for field in ("target_tokens", "repetition_cap", "runs", "seed"):
            if field == "repetition_cap" and value == 2_000_000.5:
                continue
            answer = client.post("/v1/optimizations", json={**sound, field: value})
            assert problem(answer)["field"] == field, (field, value)
        answer = client.post("/v1/optimizations", json={**sound, "proxy": {**proxy, "tokens": value}})
        assert problem(answer)["field"] == "proxy.tokens"
    weights = {"books": "1", "web:news": 0.0, "web:forums": 0.0}
    asked = {"domain_set": "pool", "name": "m", "weights": weights}
    assert problem(client.post("/v1/mixtures", json=asked))["field"] == "weights.books"
    assert client.get("/v1/optimizations").json()["items"] == []
    written = client.post("/v1/optimizations", json={**sound, "target_tokens": 2e6, "strengths": [1, 5]})
    assert written.json()["settings"]["target_tokens"] == 2_000_000, "JSON has one kind of number"


def test_advice_leads_somewhere(client: TestClient, domain_set: Document) -> None:
    """What a refused dry run says to do instead is accepted."""
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    proxy = {"size": "nano-0.1M", "tokens": 65_536}
    asked = {"domain_set": "pool", "target_tokens": 2_000_000, "repetition_cap": 4, "proxy": proxy}
    for reuse in (None, {"kind": "none", "runs": False}):
        said = asked if reuse is None else {**asked, "reuse": reuse}
        refused = client.post("/v1/optimizations?dry_run=true", json=said)
        assert problem(refused)["code"] == "not_counted"
        assert "without dry_run" in refused.json()["detail"]
        assert '"none"' not in refused.json()["detail"]
        assert client.post("/v1/optimizations", json=said).status_code == 202


def test_more_domains_runs_or_items_than_allowed(client: TestClient, domain_set: Document) -> None:
    file = domain_set["domains"][0]["files"][0]
    many = [{"name": f"d{index}", "files": [file]} for index in range(2001)]
    answer = client.post("/v1/domain-sets", json={**domain_set, "domains": many})
    assert problem(answer)["code"] == "too_many_domains"
    domain_set["domains"][0]["files"] = [file] * 10_001
    assert problem(client.post("/v1/domain-sets", json=domain_set))["field"] == "domains[0].files"
    for limit in (0, -1, 201, 10**20, "x", "1e2"):
        assert problem(client.get("/v1/runs", params={"limit": limit}))["field"] == "limit"
    still_answers(client)
    domain_set["domains"][0]["files"] = [file]
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    request = {
        "domain_set": "pool",
        "runs": 20_001,
        "target_tokens": 2_000_000,
        "proxy": {"size": "nano-0.1M", "tokens": 65_536},
    }
    assert problem(client.post("/v1/optimizations", json=request))["field"] == "runs"


def test_dense_shares_are_refused_where_they_become_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a group, whose name is short and whose domains are many."""
    monkeypatch.setattr(checks, "MOST_SHARED", 3)
    shares = [{"name": name, "domains": ["web"], "maximum": 0.9} for name in ("one", "two")]
    request = OptimizationRequest.model_validate(
        {"domain_set": "pool", "target_tokens": 2_000_000, "shares": shares}
    )
    with pytest.raises(Invalid, match=r"'two' are of 4 domains, .* at most 3") as refused:
        checks.shares_of(request, ["books", "web:forums", "web:news"])
    assert (refused.value.code, refused.value.field) == ("too_many_shared", "shares[1].domains")


def test_a_body_is_read_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"domain_set": "nobody", "name": "mine", "weights": {"a": 1.0}}'
    read = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text, **options: read.append(text) or loads(text, **options))
    answer = client.post("/v1/mixtures", content=body, headers=JSON)
    monkeypatch.undo()
    assert answer.status_code == 404
    assert read.count(body) == 1
