"""What users name is text wherever it appears: in SQL, in pages, in messages."""

import html
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.hostile.conftest import problem, still_answers

Document = dict[str, Any]

INJECTIONS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 1337*1337 }}",
    "{% include '/etc/passwd' %}",
    "${1337*1337}",
    "x'; DROP TABLE mixtures; --",
    "' OR '1'='1",
    "%s%n{0.__class__}",
    "javascript:alert(1)",
    "\u202egnp.exe",
    "=cmd|' /C calc'!A0",
]


@pytest.mark.parametrize(
    "name",
    [
        *INJECTIONS,
        "web\u200bnews",  # a space of no width
        "web\u202enews",  # right-to-left override
        "web\x07",
        "web\x1b[31m",
        "web\x85",
        "w\u0435b",  # Cyrillic e
        "b\u03bf\u03bfks",  # Greek o
        "\uff57\uff45\uff42",  # fullwidth
        "\ufb01les",  # a ligature
        "e\u0301",  # an accent apart from its letter
    ],
)
@pytest.mark.usefixtures("untouched")
def test_a_domain_name_that_is_no_plain_name_is_refused(
    client: TestClient, domain_set: Document, name: str
) -> None:
    domain_set["domains"][1]["name"] = name
    assert problem(client.post("/v1/domain-sets", json=domain_set))["field"] == "domains[1].name"
    still_answers(client)


@pytest.mark.parametrize(
    "name", ["новости", "書籍:小説", "livres:été", "βιβλία", "web:ニュース", "web-книги"]
)
def test_names_in_any_one_script_are_names(client: TestClient, domain_set: Document, name: str) -> None:
    domain_set["domains"][2]["name"] = name
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201


def test_injections_into_names_stay_text(client: TestClient, domain_set: Document) -> None:
    """Where text is free, in a share's name and a search, it is stored and shown as it is."""
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    for text in INJECTIONS:
        request = {
            "domain_set": "pool",
            "target_tokens": 2_000_000,
            "repetition_cap": 4,
            "proxy": {"size": "nano-0.1M", "tokens": 65_536},
            "shares": [{"name": text, "domains": ["books"], "maximum": 0.2}],
        }
        answer = client.post("/v1/optimizations", json=request)
        assert answer.status_code == 202, (text, answer.text)
        identity = answer.json()["id"]
        assert answer.json()["settings"]["shares"][0]["name"] == text
        for page in ("/", f"/optimizations/{identity}", "/domain-sets/pool"):
            shown = client.get(page)
            assert shown.status_code == 200
            if text != html.escape(text):
                assert text not in shown.text, page
            assert "1787569" not in shown.text, page
        problem(client.get(f"/v1/domain-sets/{text.replace('/', '').replace('%', '').replace('?', '')}"))
        assert client.get("/v1/domain-sets", params={"after": text}).status_code == 200
        shown = client.get("/domain-sets/x", params={"after": text, "revision": text})
        assert text == html.escape(text) or text not in shown.text
        shown = client.get("/login", params={"next": f"/{text}"})
        assert text == html.escape(text) or text not in shown.text
    assert len(client.get("/v1/optimizations").json()["items"]) == len(INJECTIONS)
    assert client.get("/v1/mixtures").json()["items"] == []
