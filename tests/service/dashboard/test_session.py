"""Who may read: a form or a link signs a browser in, and nothing else does."""

from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.cli import sign_in_link
from service.http.auth import COOKIE
from service.tokens import CODE_SECONDS
from store.engine import Database
from store.settings import Settings
from store.tables import DashboardSession
from tests.service.dashboard.store import Store

TOKEN = "a-token-for-tests-only"
PAGES = ["/", "/domain-sets/pool", "/optimizations/opt_1", "/launches/launch_1"]


@pytest.fixture
def browser(client: TestClient) -> TestClient:
    """No bearer token, and redirections are looked at."""
    del client.headers["Authorization"]
    client.follow_redirects = False
    return client


@pytest.mark.parametrize("path", PAGES)
def test_every_page_sends_a_stranger_to_the_form_and_back(browser: TestClient, path: str) -> None:
    answer = browser.get(f"{path}?x=1&y=2")
    assert answer.status_code == 303
    form = browser.get(answer.headers["location"])
    assert f'name="next" value="{path}?x=1&amp;y=2"' in form.text
    signed_in = browser.post("/login", data={"token": f" {TOKEN}\n", "next": f"{path}?x=1&y=2"})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, f"{path}?x=1&y=2")


def code_of(settings: Settings) -> str:
    return sign_in_link("", settings).partition("code=")[2]


def test_a_link_signs_in_once_and_leads_to_the_clean_address(browser: TestClient, settings: Settings) -> None:
    code = code_of(settings)
    assert TOKEN not in code
    answer = browser.get(f"/?after=x&code={code}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/?after=x")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert code not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert browser.get("/").status_code == 200
    browser.cookies.clear()
    again = browser.get(f"/?code={code}")
    assert (again.status_code, "set-cookie" in again.headers) == (401, False)
    assert browser.get("/", headers={"Cookie": f"{COOKIE}={code_of(settings)}"}).status_code == 303


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_on_another_site_signs_nobody_in(browser: TestClient, settings: Settings, site: str) -> None:
    code = code_of(settings)
    answer = browser.get(f"/?code={code}", headers={"Sec-Fetch-Site": site})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    typed = browser.get(f"/?code={code}", headers={"Sec-Fetch-Site": "none"})
    assert typed.status_code == 303, "nobody has used it up"


def test_a_code_runs_out_and_is_worth_nothing_to_who_reads_the_store(
    browser: TestClient, settings: Settings
) -> None:
    code = code_of(settings)
    with closing(Database(settings.resolved_database_url)) as database, database.write() as session:
        row = session.scalars(select(DashboardSession)).one()
        assert code not in (row.cookie_hash, row.secret_hash)
        assert 0 < row.expires_at - row.created_at <= CODE_SECONDS + 1
        row.expires_at = row.created_at - 1
    assert browser.get(f"/?code={code}").status_code == 401


def test_a_wrong_token_signs_nobody_in(browser: TestClient) -> None:
    for answer in (
        browser.get("/?code=wrong"),
        browser.post("/login", data={"token": "wrong"}),
        browser.post("/login", data={"token": "x" * 43}),
        browser.post("/login", content=b"\xff&&&&&&&&&&&&"),
        browser.post("/login"),
    ):
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text
    assert browser.get("/", headers={"Cookie": f"{COOKIE}={TOKEN}"}).status_code == 303


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.test",
        "https://evil.test/",
        "/\\evil.test",
        "\\\\evil.test",
        "evil.test",
        "/\tx",
        "//evil.test/%2f",
    ],
)
def test_no_link_leads_to_another_site(browser: TestClient, elsewhere: str) -> None:
    answer = browser.post("/login", data={"token": TOKEN, "next": elsewhere})
    assert answer.headers["location"] == "/"
    assert f'value="{elsewhere}"' not in browser.get("/login", params={"next": elsewhere}).text


def test_signing_out_ends_the_session_and_every_copy_of_its_cookie(browser: TestClient) -> None:
    browser.post("/login", data={"token": TOKEN})
    assert browser.get("/").status_code == 200
    copy = browser.cookies[COOKIE]
    assert browser.post("/logout").headers["location"] == "/login"
    assert browser.get("/").status_code == 303
    assert browser.get("/", headers={"Cookie": f"{COOKIE}={copy}"}).status_code == 303


def test_another_site_signs_nobody_in_or_out(browser: TestClient) -> None:
    browser.post("/login", data={"token": TOKEN})
    for path in ("/login", "/logout"):
        answer = browser.post(path, data={"token": TOKEN}, headers={"Sec-Fetch-Site": "cross-site"})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    assert browser.get("/").status_code == 200


def test_the_cookie_is_for_https_alone_where_that_is_spoken(browser: TestClient) -> None:
    assert "secure" not in browser.post("/login", data={"token": TOKEN}).headers["set-cookie"].lower()
    browser.base_url = "https://127.0.0.1"
    answer = browser.post("/login", data={"token": TOKEN}, headers={"Origin": "https://127.0.0.1"})
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("path", ["/login", "/", "/static/dashboard.css", "/healthz", "/v1/runs", "/nowhere"])
def test_every_answer_carries_the_security_headers(browser: TestClient, path: str) -> None:
    headers = browser.get(path).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "strict-transport-security" not in headers
    assert ("cache-control" in headers) == (not path.startswith("/static/"))


def test_pages_are_kept_by_no_cache(client: TestClient) -> None:
    assert client.get("/").headers["cache-control"] == "no-store"


def test_a_large_page_is_sent_packed_to_who_takes_that(client: TestClient, store: Store) -> None:
    names = {f"web:{number:03d}": 1_000_000 for number in range(100)}
    store.domain_set("wide", names)
    plain = client.get("/domain-sets/wide", headers={"Accept-Encoding": "identity"})
    packed = client.get("/domain-sets/wide", headers={"Accept-Encoding": "gzip, br"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert {answer.headers["vary"] for answer in (plain, packed)} == {"Accept-Encoding"}
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) < len(plain.content) / 4
    small = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers
