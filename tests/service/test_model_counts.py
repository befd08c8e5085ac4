"""Counting an architecture for a request: once, never for long, and never in the way of other requests."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from proxy_models.families.architecture import CountsByVocabulary
from service.training import device as model_counts
from store.settings import Settings
from tests.service.conftest import LLAMA
from tests.service.test_families import save_library

Document = dict[str, Any]


@pytest.fixture
def post(client: TestClient, optimization: Document) -> Callable[..., Any]:
    def posted(architecture: Document, **proxy: Any) -> Any:
        asked = {"architecture": architecture, "tokens": 65_536, **proxy}
        return client.post("/v1/optimizations", json={**optimization, "proxy": asked})

    return posted


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """The architectures that a process was really started for."""
    found: list[Document] = []
    ask = model_counts._ask

    def noted(architecture: Document, ending: Any) -> Any:
        found.append(dict(architecture))
        return ask(architecture, ending)

    monkeypatch.setattr(model_counts, "_ask", noted)
    return found


def test_an_architecture_is_counted_once(
    post: Callable[..., Any], asked: list[Document], settings: Settings
) -> None:
    first = post(LLAMA)
    assert first.status_code == 202, first.text
    assert post(LLAMA).json()["cost"] == first.json()["cost"] is not None
    assert asked == [LLAMA]
    (file,) = settings.model_counts.iterdir()
    assert CountsByVocabulary.from_dict(json.loads(file.read_text())).positions == {
        "max_position_embeddings": 2048
    }


def test_what_is_refused_is_remembered_too(post: Callable[..., Any], asked: list[Document]) -> None:
    for _ in range(2):
        answer = post({**LLAMA, "hidden_act": "nonsense"})
        assert (answer.status_code, answer.json()["field"]) == (422, "proxy.architecture")
    assert len(asked) == 1


def test_rows_longer_than_an_architecture_sees_are_refused(post: Callable[..., Any]) -> None:
    answer = post({**LLAMA, "max_position_embeddings": 64}, sequence_length=128)
    assert (answer.status_code, answer.json()["field"]) == (422, "proxy.architecture.max_position_embeddings")
    assert "below the sequence_length of 128" in answer.json()["detail"]


def test_a_count_that_fails_leaves_the_cost_unknown_and_is_not_tried_again_at_once(
    post: Callable[..., Any], asked: list[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_counts.sys, "executable", "/bin/false")
    monkeypatch.setattr(model_counts, "_unwritten", {})
    for _ in range(2):
        answer = post(LLAMA)
        assert (answer.status_code, answer.json()["cost"]) == (202, None)
    assert len(asked) == 1


def test_an_answer_that_cannot_be_written_down_holds_all_the_same(
    post: Callable[..., Any], asked: list[Document], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_counts, "_unwritten", {})
    settings.model_counts.write_text("a file where the directory would be")
    for _ in range(2):
        assert post({**LLAMA, "hidden_act": "nonsense"}).status_code == 422
    assert len(asked) == 1


def test_nobody_waits_for_anothers_count(post: Callable[..., Any], asked: list[Document]) -> None:
    with model_counts._counting:
        answered: list[Any] = []
        other = threading.Thread(target=lambda: answered.append(post(LLAMA)))
        other.start()
        other.join(60)
        assert [(one.status_code, one.json()["cost"]) for one in answered] == [(202, None)]
    assert asked == []


def test_what_is_wrong_for_less_is_found_first(
    client: TestClient, optimization: Document, asked: list[Document]
) -> None:
    proxy = {"architecture": LLAMA, "tokens": 65_536}
    unknown = {**optimization, "domain_set": "nowhere", "proxy": proxy}
    assert client.post("/v1/optimizations", json=unknown).status_code == 404
    assert asked == []


def test_of_a_checkpoint_the_folder_is_at_fault(
    client: TestClient, optimization: Document, settings: Settings
) -> None:
    folder = save_library(settings.data_directory / "corpora" / "published", max_position_embeddings=64)
    proxy = {"start": str(folder), "tokens": 65_536, "learning_rate": 1e-3}
    answer = client.post("/v1/optimizations", json={**optimization, "proxy": proxy})
    assert (answer.status_code, answer.json()["field"]) == (422, "proxy.start")
