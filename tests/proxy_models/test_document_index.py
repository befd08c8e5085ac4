"""Copies of documents, found from digests and held against a count of the texts themselves."""

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from proxy_models.errors import TokenizerError, TooLittleText
from proxy_models.text import document_index
from proxy_models.text.document_index import (
    DOCUMENTS,
    HELD_OUT,
    IndexWriter,
    SeenDocuments,
    holds,
    left_to_others,
    shared_texts,
)
from proxy_models.text.held_out import document_digest, is_held_out
from proxy_models.text.preparation import PreparationSpec, prepare_domain
from proxy_models.text.reading import Reading
from proxy_models.text.token_shard import HELD_OUT as HELD_OUT_FILE
from proxy_models.text.token_shard import TOKENS
from proxy_models.text.tokenizer import TextTokenizer
from store.revisions.shared_text import domain_warnings
from store.tables import DomainRow
from tests.proxy_models.conftest import Pool, write_documents

corpora = st.lists(st.lists(st.integers(0, 30), max_size=40), min_size=1, max_size=4)


def length(document: int) -> int:
    return document % 7 + 2


@given(corpora, st.sampled_from([1, 3, 2**19]))
@settings(max_examples=60, deadline=None)
def test_copies_within_and_between_domains_are_those_a_count_of_texts_finds(
    domains: list[list[int]], stretch: int
) -> None:
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_index, "STRETCH", stretch)
        indexes = {}
        for number, texts in enumerate(domains):
            directory = Path(root) / str(number)
            directory.mkdir()
            writer, begin = IndexWriter(directory), 0
            for text in texts:
                writer.add(document_digest(str(text)), begin, length(text))
                begin += length(text)
            counts, repeated = Counter(texts), writer.write()
            assert repeated.documents == len(texts) - len(counts)
            assert repeated.tokens == sum(length(text) * (copies - 1) for text, copies in counts.items())
            most = sorted((copies for copies in counts.values() if copies > 1), reverse=True)[:3]
            assert repeated.most["copies"].tolist() == most
            assert [file.name for file in directory.iterdir()] == [DOCUMENTS]
            indexes[str(number)] = directory / DOCUMENTS
        held = {str(number): set(texts) for number, texts in enumerate(domains)}
        found = {text.domains: text for text in shared_texts(indexes)}
        for size in range(2, len(held) + 1):
            for names in combinations(sorted(held), size):
                others = set[int]().union(*(held[name] for name in held if name not in names))
                texts = set.intersection(*(held[name] for name in names)) - others
                assert (found[names].documents if names in found else 0) == len(texts)
                if texts:
                    assert found[names].tokens == dict.fromkeys(names, sum(map(length, texts)))


@given(corpora, st.sets(st.integers(0, 3)), st.sampled_from([1, 3, 2**19]))
@settings(max_examples=60, deadline=None)
def test_a_shared_document_stays_with_who_gives_nothing_or_with_the_smallest(
    domains: list[list[int]], giving: set[int], stretch: int
) -> None:
    names = {f"d{number}": texts for number, texts in enumerate(domains)}
    given_by = {f"d{number}" for number in giving} & names.keys()
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_index, "STRETCH", stretch)
        indexes = {}
        for name, texts in names.items():
            writer = IndexWriter(Path(root) / name)
            writer.directory.mkdir()
            for text in texts:
                writer.add(document_digest(str(text)), HELD_OUT if text % 5 == 0 else 0, length(text))
            writer.write()
            indexes[name] = writer.directory / DOCUMENTS
        left = left_to_others(indexes, given_by)
        for text in range(31):
            holders = [name for name, texts in names.items() if text in texts]
            keepers = [name for name in holders if name not in given_by]
            keepers = keepers or sorted(holders, key=lambda name: (len({*names[name]}), name))[:1]
            for name in names:
                is_left = name in left and holds(left[name], document_digest(str(text)))
                assert is_left == (name in holders and name not in keepers)


def rising(texts: list[str]) -> np.ndarray:
    return np.sort(np.array([int.from_bytes(document_digest(text)[:8], "big") for text in texts], np.uint64))


@pytest.mark.parametrize("count", [60, 4])
def test_a_domain_without_some_documents_is_that_of_files_which_lack_them(
    pool: Pool, tmp_path: Path, count: int
) -> None:
    """Its tokens, held-out slice, counts and content, also where so few documents are split by their order."""
    texts = [f"text number {i} of {count} " * 60 for i in range(count)]
    whole = write_documents(tmp_path / "whole.jsonl", [*texts, texts[0], texts[1]])
    lacking = [text for number, text in enumerate(texts) if number % 3]
    expected = prepare_domain(spec_of(pool, tmp_path, write_documents(tmp_path / "lacking.jsonl", lacking)))
    dropping = replace(spec_of(pool, tmp_path, whole), reading=Reading(copies="drop_shared"))
    spec = replace(dropping, without=rising(texts[::3]))
    made = prepare_domain(spec)
    assert made.meta.key not in (expected.meta.key, prepare_domain(dropping).meta.key)
    for file in (TOKENS, HELD_OUT_FILE, DOCUMENTS):
        assert (made.directory / file).read_bytes() == (expected.directory / file).read_bytes()
    assert made.meta.content == expected.meta.content
    assert made.meta.findings is not None
    assert made.meta.findings["dropped_documents"] == len(texts[::3]) + 2
    assert prepare_domain(spec).reused
    with pytest.raises(TooLittleText, match="what it has is in other domains too"):
        prepare_domain(replace(dropping, without=rising(texts)))


def spec_of(pool: Pool, tmp_path: Path, *files: Path) -> PreparationSpec:
    return PreparationSpec("d", files, pool.tokenizer, tmp_path / "shards", 0.2, 4096, 16)


def test_counting_tells_repeated_documents_and_names_the_most_frequent(pool: Pool, tmp_path: Path) -> None:
    texts = [f"text number {i} " * 20 for i in range(60)]
    trained = [text for text in texts if not is_held_out(document_digest(text), 0.2)]
    often = trained[7]
    path = write_documents(tmp_path / "a.jsonl", [*texts, *texts, often])
    meta = prepare_domain(spec_of(pool, tmp_path, path)).meta
    assert meta.documents == 121
    assert meta.findings is not None
    assert meta.findings["repeated_documents"] == 61
    once = sum(len(pool.tokenizer.encode(text)) + 1 for text in trained)
    assert meta.findings["unique_tokens"] == once
    assert meta.tokens == 2 * once + len(pool.tokenizer.encode(often)) + 1
    assert meta.findings["repeated"][0]["copies"] == 3
    assert often.startswith(meta.findings["repeated"][0]["text"])
    assert meta.findings["lost_characters"] == 0


def test_the_same_text_in_two_formats_is_shared_and_its_place_is_known(pool: Pool, tmp_path: Path) -> None:
    texts = [f"text number {i} " * 20 for i in range(60)]
    first = prepare_domain(spec_of(pool, tmp_path, write_documents(tmp_path / "a.jsonl", texts)))
    ids = [
        token for text in texts[:30] for token in [*pool.tokenizer.encode(text), pool.tokenizer.end_of_text]
    ]
    np.save(tmp_path / "b.npy", np.array(ids, dtype=np.uint16))
    second = prepare_domain(spec_of(pool, tmp_path, tmp_path / "b.npy"))
    (shared,) = shared_texts({"one": first.directory / DOCUMENTS, "two": second.directory / DOCUMENTS})
    assert shared.domains == ("one", "two")
    assert shared.documents == 30
    assert shared.tokens == {"one": second.meta.tokens, "two": second.meta.tokens}
    tokens = np.fromfile(first.directory / "tokens.bin", np.uint16)
    for begin, count in shared.begins:
        assert pool.tokenizer.decode(tokens[begin : begin + count - 1]) in texts[:30]


def words(*known: str) -> TextTokenizer:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", "</s>", *known])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return TextTokenizer(backend, 1)


def test_a_tokenizer_that_loses_text_is_refused_and_a_little_loss_is_told(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"known words {'known ' * 40}" for _ in range(60)])
    spec = replace(spec_of(pool, tmp_path, path), tokenizer=words("known"))
    with pytest.raises(TokenizerError, match=r"loses 5% of the text of domain 'd'"):
        prepare_domain(spec)
    mostly = write_documents(tmp_path / "b.jsonl", [f"{'known ' * (60 + i)}x" for i in range(24)])
    findings = prepare_domain(replace(spec, files=(mostly,))).meta.findings
    assert findings is not None
    assert findings["lost_characters"] == pytest.approx(1 / 360, rel=0.2)  # one character of 301 to 416
    assert findings["lost_spaces"] == pytest.approx(1 / 72, rel=0.2), "the one before what is unknown"
    assert words("known").lost("known 你好 known") == (2, 12)
    assert words("known").unknown_among([0, 2, 0]) == (2, 3)


def test_a_tokenizer_that_makes_one_space_of_several_loses_how_code_is_laid_out(
    pool: Pool, tmp_path: Path
) -> None:
    """As T5's and XLM-R's do: no character is lost, and every indentation is."""
    code = "\ndef f(x):\n    if x:\n        return 1\n    return 2\n"
    assert pool.tokenizer.lost_spaces(code) == (0, 23)
    collapsing = tokenizers.Tokenizer.from_str(pool.tokenizer.backend.to_str())
    collapsing.normalizer = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")  # type: ignore[assignment]
    tokenizer = TextTokenizer(collapsing, pool.tokenizer.end_of_text)
    assert tokenizer.lost(code) == (0, 26)
    assert tokenizer.lost_spaces(code) == (16, 23)
    path = write_documents(tmp_path / "a.jsonl", [code.replace("f", f"f{i}") for i in range(60)])
    meta = prepare_domain(replace(spec_of(pool, tmp_path, path), tokenizer=tokenizer)).meta
    assert meta.findings is not None
    assert (meta.findings["lost_characters"], meta.findings["lost_spaces"]) == (0, 16 / 23)
    row = DomainRow(name="code", counted_tokens=meta.tokens, findings=meta.findings)
    (said,) = domain_warnings(row)
    assert said.startswith("The tokenizer loses 70% of its spaces and line ends")


@given(st.lists(st.integers(0, 200), max_size=300), st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_only_the_first_of_equal_documents_is_new(texts: list[int], run: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_index, "_RUN", run)
        seen = SeenDocuments()
        new = [seen.is_new(document_digest(str(text))) for text in texts]
    assert new == [text not in texts[:at] for at, text in enumerate(texts)]


def test_copies_are_left_out_where_that_is_said(pool: Pool, tmp_path: Path) -> None:
    texts = [f"text number {i} " * 20 for i in range(60)]
    once = prepare_domain(spec_of(pool, tmp_path, write_documents(tmp_path / "once.jsonl", texts))).meta
    twice = write_documents(tmp_path / "twice.jsonl", [text for text in texts for _ in range(2)])
    spec = replace(spec_of(pool, tmp_path, twice), reading=Reading(copies="drop"))
    meta = prepare_domain(spec).meta
    assert meta.findings is not None
    assert (meta.findings["dropped_documents"], meta.findings["repeated_documents"]) == (60, 0)
    assert (meta.documents, meta.tokens, meta.content) == (once.documents, once.tokens, once.content)
    assert (meta.size_bytes, meta.held_out_bytes) == (once.size_bytes, once.held_out_bytes)
