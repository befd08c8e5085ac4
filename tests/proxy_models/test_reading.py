"""The text of a file is where its reading says: a member or column of another name, nested ones, a line each."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import read_documents
from proxy_models.text.reading import Reading

TEXTS = ["plain", "naïve ☃ snow\n", "  indented\nlines\n\n"]


def json_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def parquet(path: Path, records: list[Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("write", [json_lines, parquet])
def test_text_is_read_from_the_member_or_column_named(tmp_path: Path, write: Any) -> None:
    for field, wrap in (
        ("content", lambda text: {"id": 7, "content": text}),
        ("Text", lambda text: {"text": "the other", "Text": text}),
        ("a.b", lambda text: {"a": {"b": text, "c": 1}, "text": "the other"}),
        ("a.b.c", lambda text: {"a": {"b": {"c": text}}}),
    ):
        path = write(tmp_path / ("a.parquet" if write is parquet else "a.jsonl"), list(map(wrap, TEXTS)))
        assert list(read_documents(path, reading=Reading(text_field=field))) == TEXTS, field


@pytest.mark.parametrize("write", [json_lines, parquet])
def test_a_missing_text_says_which_strings_there_are(tmp_path: Path, write: Any) -> None:
    path = write(
        tmp_path / ("a.parquet" if write is parquet else "a.jsonl"), [{"content": "x", "url": "y", "n": 1}]
    )
    with pytest.raises(CorpusError, match=r"has no (string|column) 'text'; its strings are content, url"):
        list(read_documents(path))
    with pytest.raises(CorpusError, match=r"'content\.body'"):
        list(read_documents(path, reading=Reading(text_field="content.body")))


def test_a_line_is_a_document_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("first\r\n\nsecond ☃\n   \nthird".encode())
    assert list(read_documents(path, reading=Reading(format="lines"))) == ["first", "second ☃", "third"]
    assert len(list(read_documents(path))) == 1


def test_json_may_be_wanted_as_the_text_it_is(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"text": "inner"}])
    assert list(read_documents(path, reading=Reading(format="text"))) == ['{"text": "inner"}\n']
