"""What the library's models consist of, over any vocabulary."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from proxy_models.families.architecture import Architecture, Counts, CountsByVocabulary
from proxy_models.families.counting import count, counted

OLMOE: dict[str, Any] = {
    "model_type": "olmoe",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}


def test_two_vocabularies_say_what_a_third_one_brings() -> None:
    found = CountsByVocabulary.from_dict(count(OLMOE))
    for vocabulary in (300, 4096, 50_304):
        assert found.over(vocabulary) == counted(Architecture(OLMOE, vocabulary))
    # untied: a row of the embedding and one of the head for each token
    assert found.per_token == Counts(64, 0, 0, 32, 0)
    assert CountsByVocabulary.from_dict(json.loads(json.dumps(asdict(found)))) == found


def test_a_process_without_torch_asks_another() -> None:
    command = [sys.executable, "-m", "proxy_models.families.counting"]
    asked = json.dumps({**OLMOE, "hidden_act": "nonsense"})
    said = json.loads(subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout)
    assert said["field"] == "architecture"
    assert "no olmoe can be built" in said["problem"]


def test_what_does_not_grow_by_rows_is_no_table() -> None:
    few, many = Counts(10, 10, 10, 0, 0), Counts(11, 11, 11, 0, 0)
    with pytest.raises(ValueError, match="whole rows"):
        CountsByVocabulary.through((4, few), (8, many), {})


def test_settings_that_never_end_fail_the_process_and_not_the_machine() -> None:
    """They pass every check that knows nothing of the family; the library would build the list for minutes."""
    endless = {
        "model_type": "gpt_neo",
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global"] * 50, 10**9]],
    }
    command = [sys.executable, "-m", "proxy_models.families.counting"]
    done = subprocess.run(command, input=json.dumps(endless), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "MemoryError" in done.stderr
    assert not done.stdout
