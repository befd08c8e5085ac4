"""``/readyz`` has a line for everything the service needs, and says in it what is wrong and what to do."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service.http.app import create_app
from service.observability.health import check_storage
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
