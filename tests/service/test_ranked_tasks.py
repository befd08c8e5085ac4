"""Tasks with choices over the API: what is accepted, what is stored, and what is refused by which field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.settings import Settings

Document = dict[str, Any]
QUESTIONS = [{"context": "2 + 2 =", "choices": [" 3", " 4"], "gold": 1}] * 3
PLAIN = [{"context": "2 + 2 =", "continuation": " 4"}]


@pytest.fixture
def task(settings: Settings) -> Callable[..., Document]:
    """Write a task file of these records; answers a request for the task."""

    def write(name: str, records: list[Document], **asked: object) -> Document:
        path = settings.data_directory / "corpora" / f"{name}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return {"name": name, "path": str(path), **asked}

    return write


def post(client: TestClient, request: Document) -> Document:
    response = client.post("/v1/optimizations", json=request)
    assert response.status_code == 202, response.text
    return response.json()


def refused(client: TestClient, request: Document) -> Document:
    response = client.post("/v1/optimizations", json=request)
    assert response.status_code == 422, response.text
    return response.json()


def test_what_a_task_is_measured_by_is_stored_with_it(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    tasks = [
        task("ranked", QUESTIONS, metric="accuracy", normalization="token"),
        task("smooth", QUESTIONS),
        task("plain", PLAIN),
    ]
    stored = post(client, {**optimization, "tasks": tasks})["settings"]["tasks"]
    assert [(one["metric"], one["normalization"], one["examples"]) for one in stored] == [
        ("accuracy", "token", 3),
        ("bpb", "character", 3),
        ("bpb", None, 1),
    ]


@pytest.mark.parametrize(
    ("records", "asked", "field", "said"),
    [
        ([{**QUESTIONS[0], "gold": 2}], {}, "tasks[0].path", "line 1"),
        ([QUESTIONS[0], {**QUESTIONS[0], "choices": [" 4"]}], {}, "tasks[0].path", "line 2"),
        ([QUESTIONS[0], *PLAIN], {}, "tasks[0].path", "line 2"),
        ([{**QUESTIONS[0], "choices": [" 4", " 4"]}], {}, "tasks[0].path", "line 1"),
        ([{**QUESTIONS[0], "choices": ["", " 4"]}], {}, "tasks[0].path", "line 1"),
        (PLAIN, {"metric": "accuracy"}, "tasks[0].metric", "line 1"),
        (PLAIN, {"normalization": "byte"}, "tasks[0].normalization", "no choices"),
        (QUESTIONS, {"metric": "f1"}, "tasks[0].metric", "'bpb', 'accuracy'"),
        (QUESTIONS, {"normalization": "pmi"}, "tasks[0].normalization", "'none', 'character'"),
    ],
)
def test_what_is_wrong_with_choices_is_named(
    client: TestClient,
    optimization: Document,
    task: Callable[..., Document],
    records: list[Document],
    asked: Document,
    field: str,
    said: str,
) -> None:
    answer = refused(client, {**optimization, "tasks": [task("quiz", records, **asked)]})
    assert answer["field"] == field, answer
    assert said in answer["detail"]
    if field.endswith("path"):
        assert Path("quiz.jsonl").name in answer["detail"]


def test_a_task_called_like_an_accuracy_has_to_say_what_it_stands_for(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    answer = refused(client, {**optimization, "tasks": [task("arc_acc", QUESTIONS)]})
    assert (answer["code"], answer["field"]) == ("unclear_direction", "tasks[0].metric")
    assert "'arc_acc'" in answer["detail"]
    for metric in ("bpb", "accuracy"):
        asked = {**optimization, "tasks": [task("arc_acc", QUESTIONS, metric=metric)]}
        settings = post(client, asked)["settings"]
        assert (settings["tasks"][0]["metric"], settings["kl_unit"]) == (metric, "spread")


@pytest.mark.parametrize(
    ("rail", "field"),
    [
        ({"task": "quiz", "at_most": 0.5}, "guard_rails[0].at_most"),
        ({"task": "plain", "at_least": 0.5}, "guard_rails[0].at_least"),
        ({"task": "held-out/books", "at_least": 0.5}, "guard_rails[0].at_least"),
        ({"task": "quiz", "at_least": 1.5}, "guard_rails[0].at_least"),
        ({"task": "quiz", "at_least": 0.5, "worse_than_natural": 0.1}, "guard_rails[0]"),
    ],
)
def test_a_bound_on_the_wrong_side_is_refused(
    client: TestClient, optimization: Document, task: Callable[..., Document], rail: Document, field: str
) -> None:
    tasks = [task("quiz", QUESTIONS, metric="accuracy"), task("plain", PLAIN)]
    answer = refused(client, {**optimization, "tasks": tasks, "guard_rails": [rail]})
    assert answer["field"] == field, answer


def test_bounds_on_the_right_side_are_kept(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    tasks = [task("quiz", QUESTIONS, metric="accuracy"), task("plain", PLAIN)]
    rails = [{"task": "quiz", "at_least": 0.5}, {"task": "plain", "at_most": 3.0}]
    stored = post(client, {**optimization, "tasks": tasks, "guard_rails": rails})["settings"]["guard_rails"]
    assert [(one["at_least"], one["at_most"]) for one in stored] == [(0.5, None), (None, 3.0)]


def test_the_worst_of_two_units_is_refused(
    client: TestClient, optimization: Document, task: Callable[..., Document]
) -> None:
    tasks = [task("quiz", QUESTIONS, metric="accuracy"), task("plain", PLAIN)]
    asked = {**optimization, "tasks": tasks, "aggregate": "worst_family"}
    assert refused(client, asked)["field"] == "aggregate"
    watched = {
        **asked,
        "tasks": [tasks[0], task("quiz2", QUESTIONS, metric="accuracy"), {**tasks[1], "weight": 0}],
    }
    assert post(client, watched)["settings"]["aggregate"] == "worst_family"


def test_doubtful_spaces_and_numbers_no_reader_takes_are_told_with_their_lines(
    client: TestClient, optimization: Document, task: Callable[..., Document], settings: Settings
) -> None:
    doubtful = task(
        "doubtful",
        [
            {"context": "a", "continuation": " b"},
            {"context": "a ", "continuation": " b"},
            {"context": "a\n", "continuation": " b"},
            {"context": "a", "continuation": "  "},
        ],
    )
    said = post(client, {**optimization, "tasks": [doubtful]})["warnings"]
    assert said == [
        "Task doubtful: 2 of 4 examples have a space at the end of the context and another at the beginning of what"
        " follows, the first is number 2.",
        "Task doubtful: 1 of 4 examples score nothing but spaces, the first is number 4.",
    ]
    path = settings.data_directory / "corpora" / "long.jsonl"
    number = "1" * 5000
    path.write_text(
        json.dumps(PLAIN[0]) + "\n" + f'{{"context": "a", "continuation": " b", "id": {number}}}\n'
    )
    problem = refused(client, {**optimization, "tasks": [{"name": "long", "path": str(path)}]})
    assert (problem["code"], problem["field"]) == ("corpus_error", "tasks[0].path")
    assert "line 2: not JSON" in problem["detail"]
