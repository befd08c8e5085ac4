"""Records of the usual benchmarks are the examples that lm-eval makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.task_file import ACCURACY, TaskExample, read_task

ARC = {
    "id": "Mercury_7175875",
    "question": "An astronomer observes that a planet rotates faster. Which is the most likely effect?",
    "choices": {"text": ["denser", "longer years", "shorter days"], "label": ["A", "B", "C"]},
    "answerKey": "C",
}
HELLASWAG = {
    "ind": 24,
    "activity_label": "Roof shingle removal",
    "ctx_a": "A man is sitting on a roof.",
    "ctx_b": "he",
    "ctx": "A man is sitting on a roof. he",
    "endings": ["is using wrap  to wrap skis.", "[step] starts pulling up roofing on a roof."],
    "label": "1",
}


def read(path: Path, *records: Any) -> tuple[TaskExample, ...]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_task(path, ACCURACY)


def test_arc_is_worded_as_lm_eval_words_it(tmp_path: Path) -> None:
    (example,) = read(tmp_path / "a.jsonl", ARC)
    assert example.context == f"Question: {ARC['question']}\nAnswer:"
    assert example.choices == (" denser", " longer years", " shorter days")
    assert example.continuation == " shorter days"
    numbered = {**ARC, "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
    assert read(tmp_path / "a.jsonl", numbered)[0].continuation == " b"


def test_hellaswag_is_worded_as_lm_eval_words_it(tmp_path: Path) -> None:
    (example,) = read(tmp_path / "a.jsonl", HELLASWAG)
    assert example.context == "Roof shingle removal: A man is sitting on a roof. He"
    assert example.choices == (" is using wrap to wrap skis.", "  starts pulling up roofing on a roof.")
    assert example.continuation == example.choices[1]


def test_samples_that_lm_eval_logged_are_read(tmp_path: Path) -> None:
    requests = {
        f"gen_args_{index}": {"arg_0": "Question: x\nAnswer:", "arg_1": choice}
        for index, choice in enumerate([" a", " b"])
    }
    ranked = {"doc_id": 0, "doc": ARC, "target": "1", "arguments": requests, "resps": [], "acc": 1.0}
    (example,) = read(tmp_path / "a.jsonl", ranked)
    assert example == TaskExample("Question: x\nAnswer:", " b", (" a", " b"))
    generated = {
        "doc": {},
        "target": "42",
        "arguments": {"gen_args_0": {"arg_0": "6*7=", "arg_1": {"until": ["\n"]}}},
    }
    (tmp_path / "b.jsonl").write_text(json.dumps(generated))
    assert read_task(tmp_path / "b.jsonl") == (TaskExample("6*7=", " 42"),)
    last_word = {"doc": {}, "target": " end", "arguments": [["The very", " end"]]}
    (tmp_path / "b.jsonl").write_text(json.dumps(last_word))
    assert read_task(tmp_path / "b.jsonl") == (TaskExample("The very", " end"),)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({**ARC, "answerKey": "E"}, "answerKey is none of the labels"),
        ({**HELLASWAG, "label": ""}, "test splits have none"),
        ({**HELLASWAG, "label": "2"}, "'gold' is 2; the choices are 0 to 1"),
        ({"doc": {}, "target": "1", "arguments": {}}, "no requests"),
        ({"doc": {}, "target": "x", "arguments": [["a", " b"], ["a", " c"]]}, "target is no index"),
    ],
)
def test_what_is_wrong_with_a_known_layout_is_said_with_its_line(
    tmp_path: Path, record: Any, reason: str
) -> None:
    with pytest.raises(CorpusError, match=rf"a\.jsonl, line 2: .*{reason}"):
        read(tmp_path / "a.jsonl", ARC, record)
