"""Architectures and checkpoints in requests: what is wrong is named before anything is queued."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from proxy_models.config import size_named
from proxy_models.families.start import decoder_shapes
from service.optimizations.schemas import ProxyRequest
from store.documents import TrainingDocument
from store.settings import Settings
from tests.service.conftest import LLAMA

pytestmark = pytest.mark.usefixtures("counted_once")

Document = dict[str, Any]
TOKENS = 65_536


def save_ours(folder: Path, size: str = "nano-0.1M", **training: object) -> Path:
    """A model as a run saves it, of zeros."""
    folder.mkdir(parents=True)
    config = size_named(size, 512)
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in decoder_shapes(config).items()}
    save_file(tensors, folder / "model.safetensors")
    if training:
        (folder / "training.json").write_text(json.dumps(training))
    return folder


def save_library(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA, "vocab_size": 512, **changes}))
    save_file({"model.norm.weight": np.ones(64, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def post(client: TestClient, optimization: Document) -> Callable[[Document], Any]:
    return lambda proxy: client.post("/v1/optimizations", json={**optimization, "proxy": proxy})


def test_an_architecture_is_accepted_and_stored_without_what_is_the_tokenizers(
    post: Callable[[Document], Any],
) -> None:
    given = {**LLAMA, "vocab_size": 32_000, "bos_token_id": 1, "torch_dtype": "bfloat16"}
    answer = post({"architecture": given, "tokens": TOKENS})
    assert answer.status_code == 202, answer.text
    proxy = answer.json()["settings"]["proxy"]
    assert proxy["architecture"] == LLAMA
    assert proxy["size"] is None


def test_without_a_word_the_proxy_is_the_default_size(post: Callable[[Document], Any]) -> None:
    proxy = post({"tokens": TOKENS}).json()["settings"]["proxy"]
    assert (proxy["size"], proxy["architecture"], proxy["start"]) == ("nano-0.1M", None, None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_type": "bert"}, "proxy.architecture.model_type"),
        ({"hiden_size": 64}, "proxy.architecture.hiden_size"),
        ({"hidden_size": -1}, "proxy.architecture.hidden_size"),
        ({"num_attention_heads": 7}, "proxy.architecture.num_attention_heads"),
        ({"auto_map": {"AutoModelForCausalLM": "a.B"}}, "proxy.architecture.auto_map"),
        ({"attention_dropout": 0.5}, "proxy.architecture.attention_dropout"),
    ],
)
def test_a_bad_architecture_is_named_by_its_field(
    post: Callable[[Document], Any], change: Document, field: str
) -> None:
    answer = post({"architecture": {**LLAMA, **change}, "tokens": TOKENS})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_size_and_an_architecture_are_one_too_many(post: Callable[[Document], Any]) -> None:
    answer = post({"size": "nano-0.1M", "architecture": LLAMA, "tokens": TOKENS})
    assert (answer.status_code, answer.json()["field"]) == (422, "proxy")


def test_a_run_goes_on_from_a_model_below_a_data_root_or_of_a_run_of_this_service(
    post: Callable[[Document], Any], settings: Settings
) -> None:
    ours = save_ours(settings.artifacts / "runs" / "run_1" / "model", learning_rate=1e-4, tokens=100)
    theirs = save_library(settings.data_directory / "corpora" / "published")
    stored = post({"start": str(ours), "tokens": TOKENS}).json()["settings"]["proxy"]
    assert (stored["size"], stored["start"]) == ("nano-0.1M", str(ours))
    answer = post({"start": str(theirs), "tokens": TOKENS, "learning_rate": 1e-3})
    assert answer.json()["settings"]["proxy"]["architecture"] == LLAMA
    content = stored["start_content"]
    (ours / "training.json").write_text(json.dumps({"learning_rate": 2e-4, "tokens": 100}))
    again = post({"start": str(ours), "tokens": TOKENS}).json()["settings"]["proxy"]
    assert again["start_content"] != content


def test_what_cannot_be_started_from_is_named(
    post: Callable[[Document], Any], settings: Settings, tmp_path: Path
) -> None:
    corpora = settings.data_directory / "corpora"
    ours = save_ours(corpora / "ours")
    theirs = save_library(corpora / "theirs")
    (pickled := save_library(corpora / "pickled")).joinpath("model.safetensors").rename(
        pickled / "pytorch_model.bin"
    )
    linked = corpora / "linked"
    linked.symlink_to(save_ours(tmp_path / "outside"))
    cases: list[tuple[str, str, Document]] = [
        ("proxy.start", "outside the data roots", {"start": str(linked)}),
        ("proxy.start", "outside the data roots", {"start": "/etc"}),
        ("proxy.start", "absolute path", {"start": "ours"}),
        ("proxy.start", "does not exist", {"start": str(corpora / "nowhere")}),
        ("proxy.start", "no config.json", {"start": str(corpora)}),
        ("proxy.start", "is a pickle", {"start": str(pickled)}),
        ("proxy.learning_rate", "give learning_rate", {"start": str(theirs)}),
        ("proxy.size", "width is 64 there and 192 here", {"start": str(ours), "size": "nano-2M"}),
        (
            "proxy.architecture.hidden_size",
            "is 64 there and 128 here",
            {"start": str(theirs), "architecture": {**LLAMA, "hidden_size": 128}},
        ),
    ]
    for field, reason, proxy in cases:
        answer = post({**proxy, "tokens": TOKENS})
        assert answer.status_code == 422, (reason, answer.text)
        assert reason in answer.json()["detail"]
        assert answer.json()["field"] == field


def test_a_launch_says_what_it_trains(client: TestClient) -> None:
    answer = client.post("/v1/launches", json={"mixture_id": "mix_1", "tokens": TOKENS})
    assert answer.status_code == 422
    assert "Say what to train" in answer.json()["detail"]
    wrong = {"mixture_id": "mix_1", "tokens": TOKENS, "architecture": {**LLAMA, "hidden_size": 0}}
    assert client.post("/v1/launches", json=wrong).json()["field"] == "architecture.hidden_size"


def test_the_openapi_document_describes_them(client: TestClient) -> None:
    schemas = client.get("/v1/openapi.json").json()["components"]["schemas"]
    for name in ("ProxyRequest", "LaunchRequest"):
        properties = schemas[name]["properties"]
        assert {"size", "architecture", "start"} <= set(properties)
        assert "size" not in schemas[name]["required"]


def test_runs_are_alike_only_where_every_setting_of_the_proxy_is() -> None:
    assert set(ProxyRequest.model_fields) <= {field.name for field in fields(TrainingDocument)}
