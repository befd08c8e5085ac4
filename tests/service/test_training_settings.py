"""What may be chosen of how a model is trained reaches the run; orders that do not say it keep their meaning."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mixing.document import from_document
from proxy_models.config import TrainingConfig
from service.optimizations.schemas import TrainingRequest
from store.documents import TRAINING, TrainingDocument

Document = dict[str, Any]
CHOSEN = {
    "warmup_fraction": 0.02,
    "floor_fraction": 0.0,
    "weight_decay": 0.033,
    "attend_across_documents": False,
    "precision": "bfloat16",
}


def test_what_is_chosen_is_stored_and_trained_with(client: TestClient, optimization: Document) -> None:
    asked = {**optimization, "proxy": {**optimization["proxy"], **CHOSEN}}
    answer = client.post("/v1/optimizations", json=asked)
    assert answer.status_code == 202, answer.text
    stored = answer.json()["settings"]["proxy"]
    assert {name: stored[name] for name in CHOSEN} == CHOSEN
    trained = TrainingConfig(**from_document(TrainingDocument, stored).chosen)
    assert {name: getattr(trained, name) for name in CHOSEN} == CHOSEN


@pytest.mark.parametrize(
    ("field", "value"),
    [("warmup_fraction", 1.5), ("floor_fraction", -0.1), ("weight_decay", -1), ("precision", "float8")],
)
def test_what_cannot_be_is_refused_by_field(
    client: TestClient, optimization: Document, field: str, value: object
) -> None:
    answer = client.post(
        "/v1/optimizations", json={**optimization, "proxy": {**optimization["proxy"], field: value}}
    )
    assert answer.status_code == 422
    assert f"proxy.{field}" in answer.text


def test_an_order_that_does_not_say_is_trained_as_it_was_before() -> None:
    old = {"tokens": 65_536, "sequence_length": 128, "batch_rows": 8, "learning_rate": None, "evaluations": 3}
    assert TrainingConfig(**from_document(TrainingDocument, old).chosen) == TrainingConfig(tokens=65_536)


def test_every_default_is_one_of_the_trainers() -> None:
    request = TrainingRequest().model_dump()
    usual, unsaid = TrainingConfig(tokens=65_536), TrainingDocument(tokens=65_536)
    for name in set(TRAINING) - {"tokens"}:
        assert request[name] == getattr(usual, name), name
        assert getattr(unsaid, name) == getattr(usual, name), name
