"""The real processes, with a secret in every place that holds one, and every log they leave."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from sqlalchemy import make_url

from service.cli import shown_link
from service.cli.main import main
from service.processes.address import load_token
from service.processes.serving import LocalService
from store.schema import upgrade
from store.settings import Settings
from tests.servers import scratch_database

DATABASE_PASSWORD = "database-password-5f2c"
BROKER_PASSWORD = "broker-password-77e1"
OPERATOR_TOKEN = "operator-token-0a9b8c7d"
DEADLINE_SECONDS = 240.0


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, postgres_server: str) -> Iterator[None]:
    """Addresses with passwords: the test server lets everybody in, whatever they say."""
    with scratch_database(postgres_server) as url:
        secret = make_url(url).set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)
        monkeypatch.setenv("MIXWRIGHT_DATABASE_URL", secret)
        monkeypatch.setenv("MIXWRIGHT_BROKER_URL", f"redis://:{BROKER_PASSWORD}@127.0.0.1:1/0")
        monkeypatch.setenv("MIXWRIGHT_TOKEN", OPERATOR_TOKEN)
        yield


def ask(url: str, method: str, path: str, headers: dict[str, str], body: str | None = None) -> Any:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_SECONDS)
    connection.request(method, path, body=body, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("token", "is_terminal", "has_code"),
    [(None, True, True), (None, False, False), (OPERATOR_TOKEN, True, False), (OPERATOR_TOKEN, False, False)],
)
def test_a_link_that_signs_in_is_shown_on_a_terminal_alone_and_never_has_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, is_terminal: bool, has_code: bool
) -> None:
    settings = Settings(data_directory=tmp_path, token=token)
    upgrade(settings.resolved_database_url)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    link = shown_link("http://127.0.0.1:1", settings)
    assert link.startswith("http://127.0.0.1:1/?code=" if has_code else "http://127.0.0.1:1")
    assert (len(link) > 50) == has_code
    assert load_token(settings) not in link


@pytest.mark.usefixtures("environment")
def test_no_secret_is_in_any_log_of_the_service(tmp_path: Path) -> None:
    data = tmp_path / "data"
    wrong = "a-wrong-token-1234567890"
    with LocalService.start(data, 0) as service:
        alice = CliRunner().invoke(main, ["tokens", "create", "alice", "--data", str(data)]).stdout.strip()
        assert alice.startswith("mw_")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        cookies = []
        for secret in (alice, OPERATOR_TOKEN, wrong):
            ask(service.url, "GET", f"/?code={secret}", {})
            ask(service.url, "GET", "/v1/runs", {"Authorization": f"Bearer {secret}"})
            ask(service.url, "POST", "/v1/mixtures", {"Authorization": f"Bearer {secret}"}, "{}")
            signed_in = ask(service.url, "POST", "/login", form, f"token={secret}")
            cookies.append((signed_in.getheader("set-cookie") or "=none;").split("=")[1].split(";")[0])
        ask(service.url, "GET", "/v1/runs", {"Cookie": f"mixwright_session={cookies[0]}"})
    logs = "\n".join(path.read_text() for path in sorted((data / "logs").iterdir()))
    assert '"user": "alice"' in logs, "the audit log was written"
    assert len(cookies[0]) >= 43
    secrets = [alice, OPERATOR_TOKEN, wrong, DATABASE_PASSWORD, BROKER_PASSWORD, *cookies[:2]]
    assert [secret for secret in secrets if secret in logs] == []


@pytest.mark.usefixtures("environment")
def test_no_password_is_in_the_log_of_a_worker_whose_broker_does_not_answer(tmp_path: Path) -> None:
    log = tmp_path / "celery.log"
    command = [sys.executable, "-m", "celery", "-A", "workers.celery_app", "worker", "--concurrency", "1"]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [*command, "--loglevel", "DEBUG"],
            env={**os.environ, "MIXWRIGHT_DATA_DIRECTORY": str(tmp_path)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "Cannot connect to redis://" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            Event().wait(0.1)
    finally:
        worker.kill()
        worker.wait()
    text = log.read_text()
    assert [secret for secret in (DATABASE_PASSWORD, BROKER_PASSWORD, OPERATOR_TOKEN) if secret in text] == []


@pytest.mark.usefixtures("environment")
def test_settings_show_no_secret_right_or_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = repr(Settings()) + str(Settings())
    secrets = (DATABASE_PASSWORD, BROKER_PASSWORD, OPERATOR_TOKEN)
    assert [secret for secret in secrets if secret in shown] == []
    monkeypatch.setenv("MIXWRIGHT_TOKEN", "too-short-9z")
    with pytest.raises(ValidationError) as error:
        Settings()
    assert "too-short-9z" not in str(error.value)
    outcome = CliRunner().invoke(main, ["token"])
    assert outcome.exit_code == 1
    assert "too-short-9z" not in outcome.output


def test_a_database_that_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    address = f"postgresql+psycopg://mixwright:{DATABASE_PASSWORD}@127.0.0.1:1/mixwright"
    environment = {"MIXWRIGHT_DATABASE_URL": address, "MIXWRIGHT_DATA_DIRECTORY": str(tmp_path)}
    for command in (["tokens", "list"], ["migrate"]):
        outcome = subprocess.run(
            [sys.executable, "-m", "service.cli.main", *command],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode != 0
        assert DATABASE_PASSWORD not in outcome.stdout + outcome.stderr
