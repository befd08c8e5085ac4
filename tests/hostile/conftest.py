"""The real application, and a watch over everything around its data root."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from store.schema import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN, domain_set, on_both_databases, settings, write_corpus

__all__ = ["domain_set", "on_both_databases", "settings", "write_corpus"]

SECRET = "the-secret-of-another-directory"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """A client that gets a 500 as an answer, as anybody would."""
    upgrade(settings.resolved_database_url)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(
        create_app(settings), base_url="http://127.0.0.1", headers=headers, raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the data roots, with something in it to steal."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret.jsonl").write_text(f'{{"text": "{SECRET} {"word " * 400}"}}\n' * 200)
    return directory


@pytest.fixture
def untouched(
    tmp_path: Path, outside: Path, domain_set: dict[str, Any], settings: Settings
) -> Iterator[None]:
    """Nothing is written outside the database of the service, nor below the data roots, while a test runs."""
    settings.artifacts.mkdir(parents=True, exist_ok=True)  # readiness tries whether it takes a file
    before = snapshot(tmp_path)
    yield
    assert snapshot(tmp_path) == before


def snapshot(directory: Path) -> dict[str, Any]:
    """Every path below, with content; the database apart."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if not path.name.startswith("mixwright.db") and not path.is_symlink()
    }


def problem(response: Any) -> dict[str, Any]:
    """The problem a hostile request was answered with: 4xx, as a document, without a secret."""
    assert 400 <= response.status_code < 500, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == "application/problem+json", response.text[:500]
    assert response.headers["x-content-type-options"] == "nosniff"
    document = response.json()
    assert document["code"]
    assert len(response.content) < 20_000, "no answer is a copy of what was sent"
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    return document


def still_answers(client: TestClient) -> None:
    """The service is as it was: it answers, and nothing was stored."""
    assert client.get("/readyz").status_code == 200
    for path in ("/v1/domain-sets", "/v1/mixtures", "/v1/optimizations", "/v1/launches"):
        assert client.get(path).json() == {"items": [], "next": None}
