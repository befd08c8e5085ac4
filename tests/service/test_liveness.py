"""A server that was restarted while nothing was asked costs no request: dead connections are replaced unseen."""

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from store import engine
from store.settings import Settings


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    if on_both_databases.database_url is None:
        pytest.skip("SQLite has no server")
    return on_both_databases


def end_connections(settings: Settings) -> int:
    """End every connection to the database, as a restart of the server does; answers how many there were."""
    url = make_url(settings.resolved_database_url).set(drivername="postgresql")
    query = (
        "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_no_request_fails_after_every_connection_was_ended(client: TestClient, settings: Settings) -> None:
    for _ in range(3):
        assert client.get("/v1/runs").status_code == 200
        assert end_connections(settings) >= 1
    assert client.get("/v1/runs").status_code == 200
    end_connections(settings)
    written = client.post("/v1/launches/launch_none:cancel")
    assert written.status_code == 404, "a write finds a living connection too"


def test_only_a_connection_that_was_idle_for_long_is_asked(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    ask = engine._ask
    monkeypatch.setattr(engine, "_ask", lambda *given: (asked.append(given), ask(*given)))
    for _ in range(5):
        assert client.get("/v1/runs").status_code == 200
    assert asked == []
    monkeypatch.setattr(engine, "IDLE_SECONDS", -1.0)
    assert client.get("/v1/runs").status_code == 200
    assert len(asked) == 1
