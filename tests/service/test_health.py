"""``/readyz`` has a line for everything the service needs, and says in it what is wrong and what to do."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.http.app import create_app
from service.observability.health import SILENT_SECONDS, Pulse, check_storage
from service.processes import serving
from service.processes.serving import KeptProcess, stop_all
from store.engine import Database
from store.schema import head, upgrade
from store.settings import Settings


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@contextmanager
def served(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def test_ready_has_a_line_for_each(settings: Settings) -> None:
    upgrade(settings.resolved_database_url)
    with served(settings) as client:
        response = client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {"database": "ok", "broker": "not configured", "storage": "ok"}


@pytest.mark.parametrize(("revision", "now"), [(None, "none"), ("0002", "0002")])
def test_an_older_schema_is_not_ready_and_says_what_to_do(
    settings: Settings, revision: str | None, now: str
) -> None:
    if revision is not None:
        upgrade(settings.resolved_database_url, revision)
    with served(settings) as client:
        response = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "not_ready"
    line = f"schema {now} is older than {head()}: run 'mixwright migrate'"
    assert problem["checks"] == {"database": line, "broker": "not configured", "storage": "ok"}
    assert line in problem["detail"]


def test_a_newer_schema_under_a_running_process_is_ready_still(settings: Settings) -> None:
    upgrade(settings.resolved_database_url)
    with served(settings) as client:
        database = Database(settings.resolved_database_url)
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        database.close()
        response = client.get("/readyz")
    assert (response.status_code, response.json()["database"]) == (200, "ok, at the newer schema 9999")


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql+psycopg://user:sesame@127.0.0.1:{port}/mixwright"
    with served(Settings(data_directory=tmp_path, token="x" * 16, database_url=url)) as client:
        response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["database"] == "does not answer (OperationalError)"
    assert "sesame" not in response.text


def test_a_broker_is_asked_where_one_is_configured(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(data_directory=tmp_path, token="x" * 16, broker_url=redis_url)
    upgrade(settings.resolved_database_url)
    with served(settings) as client:
        assert client.get("/readyz").json()["broker"] == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"redis://:sesame@127.0.0.1:{taken.getsockname()[1]}/0"
    with served(settings.model_copy(update={"broker_url": gone})) as client:
        response = client.get("/readyz")
    assert (response.status_code, response.json()["checks"]["broker"]) == (
        503,
        "does not answer (ConnectionError)",
    )


def test_a_broker_that_never_answers_takes_no_longer_than_its_limit(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = Settings(data_directory=tmp_path, token="x" * 16, broker_url=url)
        upgrade(settings.resolved_database_url)
        with served(settings) as client:
            line = client.get("/readyz").json()["checks"]["broker"]
    assert line == "does not answer (TimeoutError)"


def test_embedded_children_are_told_of_no_broker(tmp_path: Path, redis_url: str) -> None:
    assert "MIXWRIGHT_BROKER_URL" not in Settings(data_directory=tmp_path).environment()
    assert (
        Settings(data_directory=tmp_path, broker_url=redis_url).environment()["MIXWRIGHT_BROKER_URL"]
        == redis_url
    )


def test_storage_must_be_a_directory_with_room(tmp_path: Path) -> None:
    assert check_storage(tmp_path / "artifacts").is_good
    assert list((tmp_path / "artifacts").iterdir()) == [], "nothing is left behind"
    file = tmp_path / "file"
    file.write_text("")
    assert "cannot be written" in check_storage(file).detail
    full = check_storage(tmp_path, least_free=2**80)
    assert (full.is_good, "MiB left" in full.detail) == (False, True)


def test_a_process_that_answers_nobody_is_not_healthy_and_one_that_nobody_asks_is(client: TestClient) -> None:
    now = 0.0
    pulse = Pulse(lambda: now)
    client.app.state.pulse = pulse  # pyright: ignore[reportAttributeAccessIssue]
    now = 1e6
    assert client.get("/healthz").status_code == 200
    first, second = pulse.begin("/v1/runs"), pulse.begin("/v1/optimizations")
    now += SILENT_SECONDS / 2
    first()
    now += SILENT_SECONDS
    assert client.get("/healthz").status_code == 200, "an answer began in time"
    pulse.begin("/readyz")()
    now += 1
    silent = client.get("/healthz")
    assert (silent.status_code, silent.json()["code"]) == (503, "serves_nobody")
    second()
    assert client.get("/healthz").status_code == 200


def test_a_web_process_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(serving, "SICK_SECONDS", 0.0)
    process = KeptProcess("web", [sys.executable, "-c", "import sys; sys.stdin.read()"], os.environ, None)
    process.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connections are taken, and nobody answers
        health = serving._Health(process, f"http://127.0.0.1:{listener.getsockname()[1]}")
        while process.is_running:
            health.look()
    assert process.tend(), "it ended, and is started again"
    stop_all([process])
