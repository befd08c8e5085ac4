"""Records of the usual benchmarks are the examples that lm-eval makes of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.task_file import ACCURACY, TaskExample, example_warnings, read_task

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


FIELDS = {
    "context": "Question: {question}\nAnswer:",
    "choices": "choices.text",
    "gold": "answerKey",
    "labels": "choices.label",
}


def test_a_layout_that_is_said_reads_what_the_same_layout_told_reads(tmp_path: Path) -> None:
    """ARC as AI2 published it, with the choices as objects, is the ARC of the hub; so is each in other files."""
    numbered = {**ARC, "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"}
    expected = read(tmp_path / "told.jsonl", ARC, numbered)
    published = [
        {
            "key": record["answerKey"],
            "question": {
                "stem": record["question"],
                "choices": [
                    {"text": text, "label": label}
                    for text, label in zip(record["choices"]["text"], record["choices"]["label"], strict=True)
                ],
            },
        }
        for record in (ARC, numbered)
    ]
    array = tmp_path / "array.json"
    array.write_text(json.dumps(published, indent=1))
    nested = {
        "context": "Question: {question.stem}\nAnswer:",
        "choices": "question.choices.text",
        "gold": "key",
        "labels": "question.choices.label",
    }
    assert read_task(array, ACCURACY, nested) == expected
    table = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ARC, numbered]), table)
    assert read_task(table) == read_task(table, ACCURACY, FIELDS) == expected
    stream = tmp_path / "stream.arrow"
    with (
        pyarrow.OSFile(str(stream), "wb") as sink,
        pyarrow.ipc.new_stream(sink, pyarrow.parquet.read_schema(table)) as out,
    ):
        out.write_table(pyarrow.parquet.read_table(table))
    assert read_task(stream, ACCURACY, FIELDS) == expected


@pytest.mark.parametrize(
    ("record", "fields", "continuation"),
    [
        ({"q": "2+2=", "a": 4}, {"context": "q", "continuation": "a"}, " 4"),
        ({"q": "2+2= ", "a": "4"}, {"context": "q", "continuation": "a"}, "4"),
        (
            {"q": "Sky?", "x": "blue", "y": "red", "ok": "blue"},
            {"context": "q", "choices": ["y", "x"], "gold": "ok"},
            " blue",
        ),
        (
            {"q": "Sky?", "c": ["red", "blue"], "ok": "B"},
            {"context": "q", "choices": "c", "gold": "ok"},
            " blue",
        ),
        (
            {"q": "Sky?", "c": ["red", "blue"], "ok": "1"},
            {"context": "q", "choices": "c", "gold": "ok"},
            " blue",
        ),
        (
            {"q": "Sky?", "c": ["red", "blue"], "ok": 1},
            {"context": "q", "choices": "c", "gold": "ok"},
            " blue",
        ),
    ],
)
def test_answers_are_told_by_index_letter_or_text(
    tmp_path: Path, record: Any, fields: dict[str, Any], continuation: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(record))
    assert read_task(path, fields=fields)[0].continuation == continuation


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": None}, "its 'question' is neither text nor a number"),
        ({"choices": {"text": "x", "label": []}}, "its 'choices.text' is no list"),
        ({"answerKey": "E"}, "its 'answerKey' is 'E', none of the labels of its choices"),
        ({"choices": {"text": ["a"]}}, "has no member 'choices.label'"),
    ],
)
def test_what_a_said_layout_does_not_find_is_named_with_its_line(
    tmp_path: Path, change: Any, reason: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ARC) + "\n" + json.dumps({**ARC, **change}))
    with pytest.raises(CorpusError, match=rf"a\.jsonl, line 2: {reason}"):
        read_task(path, fields=FIELDS)


def test_a_layout_that_nothing_tells_says_where_to_say_it(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"its strings are goal, sol1, and fields of the task say which is what"
    ):
        read(tmp_path / "a.jsonl", {"goal": "g", "sol1": "a", "label": 0})
    with pytest.raises(CorpusError, match=r"the same for every record: '\{goal' has no member in braces"):
        read_task(tmp_path / "a.jsonl", fields={"context": "{goal", "continuation": "sol1"})


def test_a_number_that_is_also_the_text_of_another_choice_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"q": "1+1=", "c": ["1", "2", "3"], "a": "2"}))
    with pytest.raises(CorpusError, match="may be the text of a choice or its number"):
        read_task(path, fields={"context": "q", "choices": "c", "gold": "a"})


def test_answers_that_may_count_from_one_are_doubted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [
        {"context": "?", "choices": [" a", " b", " c"], "gold": 1 + number % 2} for number in range(20)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    (said,) = example_warnings(read_task(path))
    assert "The first choice is never the right one" in said
    path.write_text("".join(json.dumps({**record, "gold": record["gold"] - 1}) + "\n" for record in records))
    assert not [*example_warnings(read_task(path))]


def test_a_file_that_is_no_records_is_refused_as_a_task_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Question: what?\n")
    with pytest.raises(
        CorpusError, match="is plain text; a task is JSON lines, a JSON array, Parquet or Arrow"
    ):
        read_task(path)
