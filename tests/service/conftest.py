"""A real application over a real, migrated SQLite database and real files, without workers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http.app import create_app
from service.training import device
from store.schema import upgrade
from store.settings import Settings
from tests.servers import scratch_database

TOKEN = "a-token-for-tests-only"
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


MANY = 10_000.0
"""Requests a second: tests ask at once, and a collection of their process's garbage counts as a user's processor."""


def settings_in(directory: Path) -> Settings:
    """Of a service whose data is there."""
    (directory / "corpora").mkdir(parents=True)
    return Settings(
        data_directory=directory,
        token=TOKEN,
        user_requests_per_second=MANY,
        address_requests_per_second=MANY,
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path / "data")


@pytest.fixture(params=["sqlite", "postgresql"])
def on_both_databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a service over each database; a module that promises something on both makes them its own."""
    settings = settings_in(tmp_path / "data")
    if request.param == "sqlite":
        yield settings
        return
    with scratch_database(request.getfixturevalue("postgres_server")) as url:
        yield settings.model_copy(update={"database_url": url})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    upgrade(settings.resolved_database_url)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(settings), base_url="http://127.0.0.1", headers=headers) as client:
        yield client


_counts: dict[str, Any] = {}


@pytest.fixture
def counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process counts an architecture, once however many services are asked about it."""
    ask = device._ask

    def remembered(architecture: dict[str, Any], ending: Any) -> Any:
        key = json.dumps(architecture, sort_keys=True)
        if key not in _counts:
            _counts[key] = ask(architecture, ending)
        return _counts[key]

    monkeypatch.setattr(device, "_ask", remembered)


@pytest.fixture
def write_corpus(settings: Settings) -> Callable[..., str]:
    """Write a JSONL corpus of so many distinct documents below the data root; answers its path."""

    def write(name: str, documents: int = 400) -> str:
        path = settings.data_directory / "corpora" / f"{name}.jsonl"
        lines = (
            json.dumps({"text": f"{name} document {index}: " + f"word{index} " * 40})
            for index in range(documents)
        )
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    return write


@pytest.fixture
def domain_set(write_corpus: Callable[..., str]) -> dict[str, Any]:
    """A request for a set of three domains of declared size, ten times apart."""
    return {
        "name": "pool",
        "domains": [
            {"name": "web:news", "files": [write_corpus("news")], "tokens": 1_000_000},
            {"name": "web:forums", "files": [write_corpus("forums")], "tokens": 100_000},
            {"name": "books", "files": [write_corpus("books")], "tokens": 10_000},
        ],
    }


@pytest.fixture
def optimization(client: TestClient, domain_set: dict[str, Any]) -> dict[str, Any]:
    """A valid request for an optimization of the stored domain set."""
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    return {
        "domain_set": "pool",
        "method": "olmix",
        "target_tokens": 2_000_000,
        "repetition_cap": 4,
        "proxy": {"size": "nano-0.1M", "tokens": 65_536},
    }
