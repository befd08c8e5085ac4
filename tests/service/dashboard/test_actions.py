"""Doing things from a page: a form's request is the API's, with the API's rules, and nobody sees a button in vain."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.dashboard.actions import document_of
from service.dashboard.templating import scope_of
from service.http.routes import ThreadRoute
from service.tokens import Scope, create_token
from store.problems import Invalid
from store.tables import Optimization, WorkerRow
from tests.service.dashboard.store import TOKENS, Store, evidence

TOKEN = "a-token-for-tests-only"
OWN = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
SignIn = Callable[..., TestClient]


@pytest.fixture
def sign_in(client: TestClient, store: Store) -> SignIn:
    """A browser of the operator, or of a user who has a scope."""

    def sign_in(scope: str | None = None) -> TestClient:
        secret = TOKEN
        if scope is not None:
            with store.database.write() as session:
                secret = create_token(session, f"{scope}-only", [Scope(scope)])
        client.headers.pop("Authorization", None)
        client.cookies.clear()
        client.follow_redirects = False
        assert client.post("/login", data={"token": secret}).status_code == 303
        return client

    return sign_in


@pytest.fixture
def solved(store: Store) -> str:
    return store.optimization(store.domain_set(), "succeeded", ["succeeded"] * 5, proposal=evidence(TOKENS))


def forms(html: str) -> list[str]:
    return re.findall(r'action="/do([^"]+)"', html)


def state_of(store: Store, optimization_id: str) -> str:
    with store.database.read() as session:
        return session.get_one(Optimization, optimization_id).state


def test_cancel_and_retry_from_the_page(sign_in: SignIn, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["succeeded", "running", "queued"])
    browser, page = sign_in(), f"/optimizations/{found}"
    for verb, state in (("cancel", "cancelled"), ("retry", "queued")):
        (path,) = (one for one in forms(browser.get(page).text) if one.endswith(verb))
        answer = browser.post(f"/do{path}", data={"back": page}, headers=OWN)
        assert (answer.status_code, answer.headers["location"]) == (303, page)
        assert state_of(store, found) == state


def test_another_sites_form_does_nothing(sign_in: SignIn, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["running"])
    browser, path = sign_in(), f"/do/v1/optimizations/{found}:cancel"
    for headers in ({}, {"Origin": "https://evil.example"}, {**OWN, "Sec-Fetch-Site": "cross-site"}):
        assert browser.post(path, data={"back": "/"}, headers=headers).status_code == 403
    browser.cookies.clear()
    assert browser.post(path, headers=OWN).headers["location"].startswith("/login")
    assert state_of(store, found) == "running"


def test_a_reader_sees_no_button_and_is_refused_all_the_same(sign_in: SignIn, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["running"])
    browser = sign_in("read")
    assert forms(browser.get(f"/optimizations/{found}").text) == []
    assert browser.post(f"/do/v1/optimizations/{found}:cancel", headers=OWN).status_code == 403
    assert state_of(store, found) == "running"


def test_who_may_write_but_not_launch_has_the_request_of_a_launch_to_copy(
    sign_in: SignIn, solved: str
) -> None:
    html = sign_in("write").get(f"/optimizations/{solved}").text
    assert any(path.endswith("/adoptions") for path in forms(html))
    assert "/v1/launches" not in forms(html)
    assert "POST /v1/launches" in html
    assert "/v1/launches" in forms(sign_in("launch").get(f"/optimizations/{solved}").text)


def test_a_mixture_is_adopted_with_a_reason_once(sign_in: SignIn, solved: str) -> None:
    browser, page = sign_in(), f"/optimizations/{solved}"
    html = browser.get(page).text
    form = re.search(r'action="/do(/v1/domain-sets/[^"]+)">(.*?)</form>', html, re.DOTALL)
    assert form is not None
    hidden = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form[2]))
    fields = {**hidden, "body": hidden["body"].replace("&#34;", '"'), "text:why": "Best on <law> & poetry"}
    for _ in range(2):
        assert browser.post(f"/do{form[1]}", data=fields, headers=OWN).headers["location"] == page
    adopted = browser.get("/v1/domain-sets/library/adoptions").json()["items"]
    assert [(one["why"], one["user"]) for one in adopted] == [("Best on <law> & poetry", "operator")]
    assert not any(path.endswith("/adoptions") for path in forms(browser.get(page).text))


def test_what_is_refused_says_why_and_leads_back(sign_in: SignIn, solved: str) -> None:
    browser, page = sign_in(), f"/optimizations/{solved}"
    fields = {"body": json.dumps({"mixture_id": "mixture_none"}), "text:why": "so", "back": page}
    answer = browser.post("/do/v1/domain-sets/library/adoptions", data=fields, headers=OWN)
    assert answer.status_code == 404
    assert "mixture_none" in answer.text
    assert f'href="{page}"' in answer.text
    elsewhere = {**fields, "back": "https://evil.example/"}
    answer = browser.post("/do/v1/domain-sets/library/adoptions", data=elsewhere, headers=OWN)
    assert "evil" not in answer.text


def test_workers_are_told_from_their_page(sign_in: SignIn, store: Store) -> None:
    with store.database.write() as session:
        row = WorkerRow(name="box/0", host="box", device="cpu", process=1, versions={})
        session.add(row)
        session.flush()
        path = f"/v1/workers/{row.id}"
    browser = sign_in()
    for shown, verb, state in (
        ({"drain", "pause"}, "drain", "draining"),
        ({"resume"}, "resume", "idle"),
        ({"drain", "pause"}, "pause", "paused"),
    ):
        offered = forms(browser.get("/workers").text)
        assert {one.rpartition("%3A")[2] for one in offered} == shown
        assert browser.post(f"/do{path}:{verb}", data={"back": "/workers"}, headers=OWN).status_code == 303
        assert browser.get(path).json()["state"] == state
    assert forms(sign_in("read").get("/workers").text) == []


def test_the_audit_names_the_request_of_the_api(
    sign_in: SignIn, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    found = store.optimization(store.domain_set(), "running", ["running"])
    browser, log = sign_in("write"), logging.getLogger("mixwright.audit")
    log.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, log.name):
        browser.post(f"/do/v1/optimizations/{found}:cancel", headers=OWN)
    log.removeHandler(caplog.handler)
    lines = [json.loads(record.message) for record in caplog.records if record.name == log.name]
    assert (f"/v1/optimizations/{found}:cancel", "write-only", 202) in {
        (line["path"], line["user"], line["status"]) for line in lines
    }


def test_the_scope_of_a_button_is_the_one_its_route_asks_for(client: TestClient) -> None:
    assert isinstance(client.app, FastAPI)
    asked = {
        route.path: route.write
        for route in _routes(client.app.routes)
        if "POST" in (route.methods or ()) and not route.path.endswith("/metrics")  # programs measure
    }
    assert len(asked) > 10
    assert {path: scope_of(path) for path in asked} == asked


def _routes(routes: Any) -> list[ThreadRoute]:
    found: list[ThreadRoute] = []
    for route in routes:
        if isinstance(route, ThreadRoute):
            found.append(route)
        inner = getattr(route, "original_router", None)
        if inner is not None:
            found.extend(_routes(inner.routes))
    return found


def test_what_is_typed_becomes_the_members_of_the_request() -> None:
    fields = {
        "body": '{"size": "nano", "tokens": 5, "kl_weight": 0.1, "runs": 3}',
        "number:tokens": " 1,000,000 ",
        "number:kl_weight": "0.25",
        "number:runs": "",
        "number:repetition_cap": "None",
        "text:proxy.size": "micro-1M",
        "text:target.name": "",
    }
    assert document_of(fields) == {
        "size": "nano",
        "tokens": 1_000_000,
        "kl_weight": 0.25,
        "repetition_cap": None,
        "proxy": {"size": "micro-1M"},
    }
    assert document_of({"back": "/"}) is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"number:tokens": "many"}, "tokens"),
        ({"number:kl_weight": "0,25"}, "kl_weight"),
        ({"number:kl_weight": "0,250"}, "kl_weight"),
        ({"number:tokens": "1,00"}, "tokens"),
        ({"number:kl_weight": "nan"}, "kl_weight"),
        ({"number:tokens": "1e999"}, "tokens"),
        ({"body": "{"}, "body"),
        ({"body": "[1]", "text:why": "x"}, "body"),
    ],
)
def test_what_cannot_be_read_is_named(fields: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid) as refused:
        document_of(fields)
    assert refused.value.field == named


def test_reading_is_not_writing() -> None:
    assert scope_of("/v1/launches/launch_1:cancel") is Scope.LAUNCH
    assert scope_of("/v1/workers/worker_1:drain") is Scope.WRITE


def test_home_has_the_latest_mixture_in_use_of_each_domain_set(sign_in: SignIn, store: Store) -> None:
    browser = sign_in()
    for name, reasons in (("library", ("first", "second")), ("other", ("third",))):
        found = store.optimization(store.domain_set(name), "succeeded", proposal=evidence(TOKENS))
        mixture = browser.get(f"/v1/optimizations/{found}").json()["mixture_id"]
        for why in reasons:
            body = {"mixture_id": mixture, "why": why}
            made = browser.post(f"/v1/domain-sets/{name}/adoptions", json=body, headers=OWN)
            assert made.status_code == 201
    table = re.search(r'aria-label="Table of mixtures in use".*?</table>', browser.get("/").text, re.DOTALL)
    assert table is not None
    assert re.findall(r'data-label="Why">(\w+)</td></tr>', table[0]) == ["third", "second"]
