"""Creating by a form: planned first, sent as the request that is shown, refused with what was typed still there."""

import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.dashboard.actions import document_of
from service.tokens import Scope, create_token
from store.problems import Invalid
from tests.service.conftest import TOKEN
from tests.service.dashboard.browsing import Open
from tests.service.dashboard.store import Store
from tests.service.test_reuse import Workers

OWN = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
Write = Callable[..., str]


def request_of(page: str) -> Any:
    """The JSON that the page says it sends."""
    found = re.search(r'aria-label="Request">POST [^\n]+\n(.*?)</pre>', page, re.DOTALL)
    assert found is not None, page
    return json.loads(html.unescape(found[1]))


def test_lines_become_domains_and_tasks() -> None:
    fields = {
        "domains:domains": 'web:news /data/news/*.jsonl "/data/more news/"\n\nbooks tokens=4,000,000\n',
        "tasks:tasks": "docs /data/docs.jsonl weight=2 family=code\nquiz '/data/a quiz.jsonl' metric=accuracy",
    }
    assert document_of(fields) == {
        "domains": [
            {"name": "web:news", "files": ["/data/news/*.jsonl", "/data/more news/"]},
            {"name": "books", "tokens": 4_000_000},
        ],
        "tasks": [
            {"name": "docs", "path": "/data/docs.jsonl", "weight": 2, "family": "code"},
            {"name": "quiz", "path": "/data/a quiz.jsonl", "metric": "accuracy"},
        ],
    }


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ({"domains:domains": 'web /a\nbooks "/b'}, "domains, line 2"),
        ({"domains:domains": "web tokens=many"}, "tokens: 'many' is not a number"),
        ({"tasks:tasks": "docs /a b.jsonl"}, "tasks, line 1: a task has one path"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(typed: dict[str, str], complaint: str) -> None:
    with pytest.raises(Invalid, match=re.escape(complaint)):
        document_of(typed)


def test_a_plan_stores_nothing_and_a_refusal_keeps_what_was_typed(
    client: TestClient, write_corpus: Write
) -> None:
    client.post("/login", data={"token": TOKEN})
    typed = {
        "text:name": "pool",
        "domains:domains": f"web {write_corpus('web')}\nbooks {write_corpus('books')}",
        "number:tokenizer.vocabulary_size": "600",
    }
    planned = client.post("/new/domain-set", data=typed, headers=OWN)
    assert planned.status_code == 200, planned.text
    assert request_of(planned.text)["tokenizer"] == {"vocabulary_size": 600}
    assert 'action="/do/v1/domain-sets"' in planned.text
    assert client.get("/v1/domain-sets").json()["items"] == []
    refused = client.post("/new/domain-set", data={**typed, "text:name": "p o o l"}, headers=OWN)
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert 'value="p o o l"' in refused.text
    assert 'action="/do' not in refused.text


def test_who_may_only_read_gets_no_way_to_a_form(client: TestClient, store: Store) -> None:
    store.domain_set()
    with store.database.write() as session:
        secret = create_token(session, "looks-only", [Scope.READ])
    reader = {"Authorization": f"Bearer {secret}"}
    for path in ("/", "/domain-sets/library"):
        assert "/new/" not in client.get(path, headers=reader).text
    assert client.post("/new/optimization", headers={**reader, **OWN}).status_code == 403


def test_a_domain_set_and_an_optimization_are_made_and_revised_by_mouse(
    open_page: Open, client: TestClient, store: Store, write_corpus: Write
) -> None:
    page = open_page("/")
    page.get_by_role("link", name="New domain set").click()
    page.get_by_label("Name", exact=True).fill("pool")
    lines = [f"{name} {write_corpus(name)}" for name in ("web", "books", "code")]
    page.get_by_label("Domains, one a line").fill("\n".join(lines[:2]))
    page.get_by_role("button", name="Show what it would be").click()
    page.get_by_role("button", name="Create it").click()
    page.wait_for_url("**/domain-sets/pool")
    page.get_by_role("link", name="Revise").click()
    typed = page.get_by_label("Domains, one a line")
    assert typed.input_value().splitlines() == sorted(lines[:2])
    typed.fill("\n".join(lines))
    page.get_by_role("button", name="Show what it would be").click()
    assert page.get_by_text("1 added").is_visible()
    page.get_by_role("button", name="Revise pool").click()
    page.wait_for_url("**/domain-sets/pool")
    assert client.get("/v1/domain-sets/pool").json()["number"] == 2
    Workers(store.database).count(2)
    page.get_by_role("link", name="New optimization").click()
    assert page.get_by_label("Domain set").input_value() == "pool"
    page.get_by_label("Method").select_option("olmix")
    page.get_by_label("Tokens of the planned run").fill("60,000")
    page.get_by_label("Tokens of a run").fill("65536")
    page.get_by_role("button", name="Show plan and cost").click()
    assert page.get_by_role("heading", name="What it would be").is_visible(), page.inner_text("main")
    assert client.get("/v1/optimizations").json()["items"] == []
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url("**/optimizations/*")
    (made,) = client.get("/v1/optimizations").json()["items"]
    asked = client.get(f"/v1/optimizations/{made['id']}").json()
    assert (asked["method"], asked["settings"]["target_tokens"]) == ("olmix", 60_000)
