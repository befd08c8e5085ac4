"""A line says what it is about, one object a line where that was asked for, and never a secret."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from store.logs import bound, configure_logging
from store.schema import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_has_what_was_bound_when_it_was_written(tmp_path: Path) -> None:
    stream = io.StringIO()
    configure_logging(Settings(data_directory=tmp_path, log_format="json"), stream)
    log = logging.getLogger("mixwright.worker")
    with bound(job_id="job_1", run_id=None), bound(attempt=2):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            log.exception("solve: %s", "store")
    log.info("after")
    first, second = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(first["time"]))
    assert {**first, "time": 0, "exception": 0} == {
        "time": 0,
        "level": "error",
        "logger": "mixwright.worker",
        "message": "solve: store",
        "job_id": "job_1",
        "attempt": 2,
        "exception": 0,
    }
    assert str(first["exception"]).endswith("ValueError: two\nlines")
    assert "job_id" not in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_written_whoever_writes_it(tmp_path: Path, log_format: str) -> None:
    (tmp_path / "token").write_text("made-by-the-service\n")
    stream = io.StringIO()
    settings = Settings.model_validate(
        {
            "data_directory": tmp_path,
            "token": TOKEN,
            "database_url": "postgresql+psycopg://u:open%40sesame@db/x",
            "broker_url": "redis://:swordfish@queue/0",
            "log_format": log_format,
        }
    )
    configure_logging(settings, stream)
    log = logging.getLogger("somebody.else")
    try:
        raise ConnectionError(f"{settings.database_url} and open@sesame")
    except ConnectionError:
        log.exception("cannot reach %s with %s", settings.broker_url, TOKEN)
    log.warning("made-by-the-service")
    written = stream.getvalue()
    for secret in (TOKEN, "made-by-the-service", "swordfish", "open%40sesame", "open@sesame"):
        assert secret not in written
    assert written.count("***") >= 5


def test_a_request_has_one_name_in_its_answer_its_problem_and_its_lines(settings: Settings) -> None:
    upgrade(settings.resolved_database_url)
    stream = io.StringIO()
    configure_logging(settings.model_copy(update={"log_format": "json", "log_level": "debug"}), stream)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        given = client.get("/v1/runs/none?secret=1", headers={"X-Request-ID": "from.the-proxy_1"})
        made = [
            client.get("/v1/runs", headers={"X-Request-ID": bad}) for bad in ("", "x" * 65, "a b", "a,b=c")
        ]
    assert given.headers["x-request-id"] == given.json()["request_id"] == "from.the-proxy_1"
    names = [one.headers["x-request-id"] for one in made]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in names)
    about = {
        line["request_id"]: line["message"] for line in lines(stream) if line["logger"] == "mixwright.web"
    }
    assert str(about["from.the-proxy_1"]).startswith("GET /v1/runs/{run_id} 422 in ")
    assert set(names) < set(about)
    assert "secret" not in stream.getvalue()


def test_what_nobody_foresaw_is_logged_under_the_request_and_answered_as_a_problem(
    settings: Settings,
) -> None:
    upgrade(settings.resolved_database_url)
    stream = io.StringIO()
    configure_logging(settings.model_copy(update={"log_format": "json"}), stream)
    app = create_app(settings)

    @app.get("/v1/broken")
    def broken() -> None:
        raise ZeroDivisionError("inside")

    with TestClient(app, base_url="http://127.0.0.1") as client:
        response = client.get("/v1/broken")
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "inside" not in response.text
    (line,) = [one for one in lines(stream) if one["level"] == "error"]
    assert line["request_id"] == response.json()["request_id"]
    assert "ZeroDivisionError: inside" in str(line["exception"])
