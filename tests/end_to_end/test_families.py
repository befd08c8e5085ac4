"""Launches over HTTP: a Llama from scratch, and one that goes on from what it saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.processes.serving import LocalService

pytestmark = pytest.mark.end_to_end

Document = dict[str, Any]
DOMAINS = ("code:small", "manual")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SHORT = {"tokens": 8_192, "sequence_length": 64, "batch_rows": 4, "evaluations": 1}


def test_a_family_and_checkpoints_are_trained_over_http(
    start_service: Callable[[str], LocalService], eventually: Callable[..., Any], tmp_path: Path
) -> None:
    service = start_service("families")
    data = tmp_path / "families"
    with Client(service.url, service.token) as client:
        files = {name: str(data / "corpora" / f"{name.replace(':', '-')}.jsonl") for name in DOMAINS}
        client.create_domain_set(
            {
                "name": "library",
                "tokenizer": {"vocabulary_size": 512},
                "held_out_fraction": 0.1,
                "evaluation_bytes": 2048,
                "domains": [{"name": name, "files": [file]} for name, file in files.items()],
            }
        )
        asked = {"domain_set": "library", "method": "uniform", "target_tokens": 50_000, "repetition_cap": 4}
        optimization = client.create_optimization(asked)["id"]

        def ended(read: Callable[[], Document]) -> Document | None:
            found = read()
            return found if found["state"] in ("succeeded", "failed", "cancelled") else None

        found = eventually(lambda: ended(lambda: client.optimization(optimization)), "the mixture")
        assert found["state"] == "succeeded", found["failure"]

        def trained(**settings: Any) -> tuple[Document, Path]:
            launch = client.create_launch({"mixture_id": found["mixture_id"], **SHORT, **settings})
            done = eventually(lambda: ended(lambda: client.launch(launch["id"])), "the launch")
            assert done["state"] == "succeeded", done["failure"]
            return done, data / "artifacts" / "runs" / done["run_id"] / "model"

        first, model = trained(architecture=LLAMA, learning_rate=1e-2)
        config = json.loads((model / "config.json").read_text())
        assert (config["model_type"], config["vocab_size"]) == ("llama", 512)
        more, again = trained(start=str(model), seed=1, learning_rate=5e-3, precision="bfloat16")
        assert more["parameters"] == first["parameters"]
        assert more["metrics"]["held-out/manual"] < first["metrics"]["held-out/manual"]
        assert json.loads((again / "training.json").read_text())["tokens"] == 2 * 8_192
