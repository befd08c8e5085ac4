"""The text of a file is where its reading says: a member or column of another name, messages, a line, a sample."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import look_at, read_documents
from proxy_models.text.held_out import document_digest, is_held_out
from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
from proxy_models.text.reading import Reading
from proxy_models.text.tokenizer import train_byte_level_bpe
from tests.proxy_models.conftest import Pool

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


MESSAGES = [
    {"role": "system", "content": "Be {role}."},
    {"role": "user", "content": "Hi ☃"},
    {"role": "assistant", "content": "Hello\n"},
]


@pytest.mark.parametrize("write", [json_lines, parquet])
def test_messages_are_rendered_one_after_another(tmp_path: Path, write: Any) -> None:
    path = write(
        tmp_path / ("a.parquet" if write is parquet else "a.jsonl"), [{"id": 1, "messages": MESSAGES}]
    )
    # Tulu 3 as open-instruct's dataset_transformation.py has it, the end-of-text left to the document's.
    tulu = "<|system|>\nBe {role}.\n<|user|>\nHi ☃\n<|assistant|>\nHello\n\n"
    assert list(read_documents(path, reading=Reading(chat="tulu"))) == [tulu]
    assert list(read_documents(path, reading=Reading(chat="<|{role}|>\n{content}\n"))) == [tulu]
    assert list(read_documents(path, reading=Reading(chat="{content}"))) == ["Be {role}.Hi ☃Hello\n"]
    with pytest.raises(CorpusError, match=r"has no (string|column) 'text'"):
        list(read_documents(path))


def test_messages_of_other_spellings_and_damaged_ones(tmp_path: Path) -> None:
    shared = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}
    path = json_lines(tmp_path / "a.jsonl", [shared])
    reading = Reading(text_field="conversations", chat="{role}: {content}\n")
    assert list(read_documents(path, reading=reading)) == ["human: Hi\ngpt: Yes\n"]
    parts = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ]
    }
    assert list(read_documents(json_lines(path, [parts]), reading=Reading(chat="{content}"))) == ["ab"]
    for record, reason in (
        ({"messages": [*MESSAGES, {"role": "tool"}]}, "line 2: its message 4 has no text"),
        ({"messages": "Hi"}, "line 2: has no list of messages"),
        ({"text": "Hi"}, "line 2: has no list of messages"),
        ({"messages": ["Hi"]}, "line 2: its message 1 is no object"),
    ):
        with pytest.raises(CorpusError, match=reason):
            list(read_documents(json_lines(path, [parts, record]), reading=Reading(chat="tulu")))
    with pytest.raises(CorpusError, match=r"it has messages, and reading\.chat is the template"):
        list(read_documents(json_lines(path, [parts])))


def test_a_sample_is_the_beginning_of_every_file_and_the_same_again(tmp_path: Path) -> None:
    texts = {
        name: [f"{name} {number} " + "word " * 20 for number in range(count)]
        for name, count in (("a", 4000), ("b", 1000))
    }
    files = tuple(
        json_lines(tmp_path / f"{name}.jsonl", [{"text": one} for one in texts[name]]) for name in texts
    )
    tokenizer = train_byte_level_bpe(texts["a"], 300, tmp_path / "t.json")
    reading = Reading(max_bytes=100_000)
    first, again = (
        prepare_domain(
            PreparationSpec("d", files, tokenizer, tmp_path / folder, 0.1, 4096, 512, reading=reading)
        )
        for folder in ("one", "two")
    )
    assert first.directory.name == again.directory.name
    assert (first.directory / "tokens.bin").read_bytes() == (again.directory / "tokens.bin").read_bytes()
    assert 100_000 <= first.meta.size_bytes < 100_000 + 2 * 200
    size = len(texts["a"][0])
    assert first.meta.documents == pytest.approx(100_000 / size, rel=0.05)
    sample = list(training_sample(files, 0.1, 10**9, reading))
    shares = [sum(text.startswith(name) for text in sample) for name in "ab"]
    assert shares[0] / shares[1] == pytest.approx(4, rel=0.1)
    assert sample[:50] == [text for text in texts["a"] if text in set(sample)][:50]
    files[1].write_text(files[1].read_text() + json.dumps({"text": "more"}) + "\n")
    whole = prepare_domain(PreparationSpec("d", files, tokenizer, tmp_path / "one", 0.1, 4096, 512))
    assert whole.meta.documents == 5001
    assert whole.directory != first.directory


GOOD = [f"document number {number} " + "of some length " * 9 for number in range(400)]
BAD = {
    "a.jsonl": [b'{"text": null}', b"not json", b"[1]", b'{"text": "\xff"}', b'{"text": "\\ud800"}', b"a\0b"],
    "a.json": [b'{"text": null}', b"5"],
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_bad_lines_are_refused_or_counted_and_shown_within_their_budget(
    pool: Pool, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    lines = [json.dumps({"text": text}).encode() for text in GOOD]
    bad = BAD.get(name, [])
    if name == "a.parquet":
        texts: list[str | None] = [*GOOD[:9], None, *GOOD[9:]]
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
        count = 1
    else:
        lines[9:9], count = bad, len(bad)
        path.write_bytes(b"\n".join(lines) if name == "a.jsonl" else b"[" + b",".join(lines) + b"]")
    with pytest.raises(CorpusError) as refused:
        list(read_documents(path))
    assert refused.value.line == 10
    share = count / (len(GOOD) + count)
    spec = PreparationSpec("d", (path,), pool.tokenizer, tmp_path / "shards", 0.2, 4096, 16)
    allowed = replace(spec, reading=Reading(bad_lines=share * 1.01))
    assert list(read_documents(path, reading=allowed.reading)) == GOOD
    meta = prepare_domain(allowed).meta
    assert meta.documents == len(GOOD)
    assert meta.findings is not None
    assert meta.findings["bad_lines"] == {"lines": count, "first": str(refused.value)}
    with pytest.raises(CorpusError, match=f"{count} of {len(GOOD) + count} lines are no documents") as over:
        prepare_domain(replace(spec, reading=Reading(bad_lines=share * 0.99)))
    assert over.value.line == 10
    (look,) = look_at([path], 10**9, Reading(bad_lines=share * 0.99))
    assert look.fault is not None


def test_a_domain_may_hold_out_a_fraction_of_its_own(pool: Pool, tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", [{"text": text} for text in GOOD])
    half = Reading(held_out_fraction=0.4)
    sample = list(training_sample([path], 0.02, 10**6, half))
    kept = {text for text in GOOD if is_held_out(document_digest(text), 0.4)}
    assert 120 < len(kept) < 200
    assert set(sample) == set(GOOD) - kept
