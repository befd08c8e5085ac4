"""A token's life: made, used, rotated, expired, revoked; and what the store knows of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text, update

from service.http.auth import COOKIE, TRUST_SECONDS, Authenticator
from service.tokens import find_by_hash
from store.engine import Database
from store.settings import Settings
from store.tables import AccessToken, DashboardSession
from tests.service.conftest import TOKEN

RunTokens = Callable[..., str]


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def database(client: TestClient, settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


def status(client: TestClient, secret: str) -> int:
    return client.get("/v1/domain-sets", headers={"Authorization": f"Bearer {secret}"}).status_code


def age(database: Database, **moments: float) -> None:
    """Set times of the only token, as if they had been long ago."""
    with database.write() as session:
        session.execute(update(AccessToken).values(moments))


def row_of(database: Database) -> AccessToken:
    with database.read() as session:
        return session.query(AccessToken).one()


def test_a_token_works_until_it_is_revoked_and_its_name_stays_taken(
    client: TestClient, run_tokens: RunTokens
) -> None:
    secret = run_tokens("create", "alice", "--scope", "read", "--scope", "write")
    assert status(client, secret) == 200
    assert status(client, secret + "x") == 401
    run_tokens("revoke", "alice")
    run_tokens("revoke", "alice")
    assert status(client, secret) == 401
    assert "choose another name" in run_tokens("create", "alice", status=1)
    assert "was revoked" in run_tokens("rotate", "alice", status=1)
    assert status(client, TOKEN) == 200


def test_the_store_has_no_secret(
    client: TestClient, run_tokens: RunTokens, database: Database, settings: Settings
) -> None:
    secret = run_tokens("create", "alice")
    client.headers["Authorization"] = ""
    client.post("/login", data={"token": secret})
    cookie = client.cookies[COOKIE]
    rotated = run_tokens("rotate", "alice")
    with database.read() as session:
        rows = [
            str(tuple(row))
            for table in ("access_tokens", "dashboard_sessions")
            for row in session.execute(text(f"SELECT * FROM {table}"))
        ]
    assert len(rows) == 2
    for one in (secret, cookie, rotated, TOKEN):
        assert not [row for row in rows if one in row]
    assert len({secret, rotated}) == 2
    assert all(len(one) >= 43 for one in (secret, cookie, rotated)), "256 bits in base64"


def test_a_rotated_token_has_two_secrets_for_the_grace(
    client: TestClient, run_tokens: RunTokens, database: Database
) -> None:
    old = run_tokens("create", "alice")
    new = run_tokens("rotate", "alice")
    assert (status(client, old), status(client, new)) == (200, 200)
    row = row_of(database)
    assert row.previous_until is not None
    assert row.rotated_at is not None
    assert row.previous_until - row.rotated_at == pytest.approx(24 * 3600, abs=1e-3)
    age(database, previous_until=row.rotated_at)
    assert (status(client, old), status(client, new)) == (401, 200)
    newest = run_tokens("rotate", "alice", "--grace", "0")
    assert (status(client, new), status(client, newest)) == (401, 200)


def test_a_token_expires(client: TestClient, run_tokens: RunTokens, database: Database) -> None:
    secret = run_tokens("create", "guest", "--expires", "90d")
    row = row_of(database)
    assert row.expires_at is not None
    assert row.expires_at - row.created_at == pytest.approx(90 * 86_400, abs=1.0)
    assert status(client, secret) == 200
    age(database, expires_at=row.created_at)
    assert status(client, secret) == 401
    assert "has expired" in run_tokens("rotate", "guest", status=1)
    assert "expired" in run_tokens("list")


def test_the_last_use_is_noted_at_most_once_a_minute(
    client: TestClient, run_tokens: RunTokens, database: Database
) -> None:
    secret = run_tokens("create", "alice")
    assert row_of(database).last_used_at is None
    status(client, secret)
    first = last_use_after(database, 0.0)
    status(client, secret)
    assert row_of(database).last_used_at == first
    age(database, last_used_at=first - 61)
    status(client, secret)
    assert last_use_after(database, first - 61) >= first


def last_use_after(database: Database, before: float) -> float:
    """The token's last use once a later one than ``before`` is written: that happens beside the requests."""
    give_up = time.monotonic() + 30
    while (row_of(database).last_used_at or 0.0) <= before:
        assert time.monotonic() < give_up, "nobody wrote it down"
    return row_of(database).last_used_at or 0.0


def test_what_another_process_ends_is_believed_in_for_two_seconds_at_most(
    client: TestClient, run_tokens: RunTokens, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.auth.TRUST_SECONDS", TRUST_SECONDS)
    secret, url = run_tokens("create", "alice"), settings.resolved_database_url
    now = 1000.0
    web = Authenticator(TOKEN, Database(url), clock=lambda: now)
    assert web.by_token(secret, "192.0.2.1") is not None
    run_elsewhere(settings, "revoke", "alice")
    assert web.recent(secret, "192.0.2.2") is None, "another client's address was not looked up"
    now += 0.99 * TRUST_SECONDS
    assert web.recent(secret, "192.0.2.1") is not None
    now += 0.02 * TRUST_SECONDS
    assert web.recent(secret, "192.0.2.1") is None
    assert web.by_token(secret, "192.0.2.1") is None
    web.close()


def test_an_answer_is_as_old_as_its_question(
    client: TestClient, run_tokens: RunTokens, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.auth.TRUST_SECONDS", TRUST_SECONDS)
    secret = run_tokens("create", "alice")
    now = 1000.0

    def slow(*arguments: Any) -> Any:
        nonlocal now
        found = find_by_hash(*arguments)
        now += 0.9 * TRUST_SECONDS  # it may be revoked from here on
        return found

    monkeypatch.setattr("service.http.auth.find_by_hash", slow)
    web = Authenticator(TOKEN, Database(settings.resolved_database_url), clock=lambda: now)
    assert web.by_token(secret, "192.0.2.1") is not None
    assert web.recent(secret, "192.0.2.1") is not None
    now += 0.2 * TRUST_SECONDS
    assert web.recent(secret, "192.0.2.1") is None
    web.close()


def run_elsewhere(settings: Settings, *arguments: str) -> None:
    """Run ``mixwright tokens ...`` in a process of its own."""
    command = [sys.executable, "-m", "service.cli.main", "tokens", *arguments]
    subprocess.run(command, env={**os.environ, **settings.environment()}, check=True, capture_output=True)


def test_a_browser_is_signed_out_with_the_secret_that_signed_it_in(
    client: TestClient, run_tokens: RunTokens, database: Database
) -> None:
    secret = run_tokens("create", "alice")
    client.headers["Authorization"] = ""
    client.post("/login", data={"token": secret})
    assert client.get("/v1/domain-sets").status_code == 200
    run_tokens("rotate", "alice")
    assert client.get("/v1/domain-sets").status_code == 200, "within the grace"
    age(database, previous_until=0.0)
    assert client.get("/v1/domain-sets").status_code == 401


def test_a_browser_stays_signed_in_for_a_week(
    client: TestClient, run_tokens: RunTokens, database: Database
) -> None:
    client.headers["Authorization"] = ""
    client.post("/login", data={"token": TOKEN})
    with database.read() as session:
        row = session.query(DashboardSession).one()
    assert row.expires_at - row.created_at == pytest.approx(7 * 86_400, abs=1.0)
    with database.write() as session:
        session.execute(update(DashboardSession).values(expires_at=row.created_at))
    assert client.get("/v1/domain-sets").status_code == 401
    client.post("/login", data={"token": TOKEN})
    with database.read() as session:
        assert session.query(DashboardSession).count() == 1, "what has run out is cleared away"


def test_another_operators_token_ends_every_session(
    client: TestClient, settings: Settings, run_tokens: RunTokens
) -> None:
    from service.http.app import create_app

    cookies = []
    client.headers["Authorization"] = ""
    for secret in (TOKEN, run_tokens("create", "alice")):
        client.post("/login", data={"token": secret})
        cookies.append(client.cookies[COOKIE])
    changed = settings.model_copy(update={"token": "another-token-for-tests"})
    with TestClient(create_app(changed), base_url="http://127.0.0.1") as other:
        for cookie in cookies:
            assert other.get("/v1/domain-sets", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 401


def test_the_list_shows_everything_but_secrets(run_tokens: RunTokens) -> None:
    secrets = [run_tokens("create", "alice", "--scope", "launch"), run_tokens("create", "bob")]
    secrets.append(run_tokens("rotate", "bob"))
    run_tokens("revoke", "alice")
    listed = run_tokens("list")
    assert not [secret for secret in secrets if secret in listed]
    _, alice, bob = listed.splitlines()
    assert alice.split()[:3] == ["alice", "read,write,launch", "revoked"]
    assert bob.split()[:4] == ["bob", "read", "old", "secret"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "operator"),
        ("create", "a b"),
        ("create", ""),
        ("create", "x" * 65),
        ("create", "x", "--expires", "0"),
        ("revoke", "nobody"),
        ("rotate", "nobody"),
    ],
)
def test_what_cannot_be_done_is_said(run_tokens: RunTokens, arguments: tuple[str, ...]) -> None:
    assert run_tokens(*arguments, status=1).startswith("Error: ")


def test_without_a_database_the_command_says_what_to_do(tmp_path: object) -> None:
    from click.testing import CliRunner

    from service.cli.main import main

    outcome = CliRunner().invoke(main, ["tokens", "list", "--data", f"{tmp_path}/nowhere"])
    assert outcome.exit_code == 1
    assert "mixwright migrate" in outcome.output
