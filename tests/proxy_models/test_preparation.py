import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from proxy_models.errors import CorpusError, DataMissing, TooLittleText
from proxy_models.text.held_out import document_digest, is_held_out
from proxy_models.text.preparation import (
    PreparationProgress,
    PreparationSpec,
    prepare_domain,
    training_sample,
)
from proxy_models.text.token_shard import META, TokenShard, smallest_dtype
from tests.proxy_models.conftest import Pool, write_documents


def documents_of(shard: TokenShard, pool: Pool) -> list[str]:
    ends = np.flatnonzero(shard.tokens == pool.tokenizer.end_of_text)
    return [
        pool.tokenizer.decode(part[part != pool.tokenizer.end_of_text])
        for part in np.split(shard.tokens, ends + 1)
    ]


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def spec_of(pool: Pool, tmp_path: Path, *files: Path) -> PreparationSpec:
    return PreparationSpec("d", files, pool.tokenizer, tmp_path / "shards", 0.2, 4096, 16)


def test_every_document_is_on_exactly_one_side(pool: Pool) -> None:
    for name, domain in pool.domains.items():
        texts = texts_of(pool.files[name])
        trained = set(documents_of(TokenShard.open(domain.directory), pool)) - {""}
        held_out = {text for text in texts if is_held_out(document_digest(text), 0.05)}
        assert trained == set(texts) - held_out
        meta = domain.meta
        assert meta.documents == len(texts)
        assert meta.size_bytes == sum(len(text.encode()) for text in texts)
        assert meta.held_out_bytes == sum(len(text.encode()) for text in texts if text in held_out)
        evaluated = texts_of(domain.directory / "held_out.jsonl")
        assert evaluated
        assert all(any(whole.startswith(text) for whole in held_out) for text in evaluated)


def test_duplicates_fall_on_one_side_in_every_domain_and_format(pool: Pool, tmp_path: Path) -> None:
    texts = [f"document number {i}, " + "text " * 20 for i in range(80)]
    first = write_documents(tmp_path / "a.jsonl", texts + texts[:40])
    second = write_documents(tmp_path / "b.jsonl", texts[::-1])
    rows = [token for text in texts for token in [*pool.tokenizer.encode(text), pool.tokenizer.end_of_text]]
    np.save(tmp_path / "c.npy", np.array(rows, dtype=np.uint16))
    sides = []
    for path in (first, second, tmp_path / "c.npy"):
        prepared = prepare_domain(spec_of(pool, tmp_path, path))
        shard = TokenShard.open(prepared.directory)
        sides.append((set(documents_of(shard, pool)) - {""}, {d.tokens for d in shard.held_out()}))
        evaluated = texts_of(prepared.directory / "held_out.jsonl")
        assert len(set(evaluated)) == len(evaluated)
    assert sides[0] == sides[1] == sides[2]
    assert 5 < len(texts) - len(sides[0][0]) < 30  # 20% of 80, give or take


def test_a_shard_is_written_once_and_found_again(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    spec = spec_of(pool, tmp_path, path)
    seen: list[PreparationProgress] = []
    first = prepare_domain(spec, seen.append)
    written_at = (first.directory / "tokens.bin").stat().st_mtime_ns
    assert not first.reused
    assert seen[-1].done == seen[-1].total == path.stat().st_size
    renamed = path.rename(tmp_path / "renamed.jsonl")
    again = prepare_domain(replace(spec, files=(renamed,), domain="other"))
    assert again.reused
    assert again.meta == first.meta
    assert (again.directory / "tokens.bin").stat().st_mtime_ns == written_at
    assert prepare_domain(replace(spec, files=(renamed,), held_out_fraction=0.3)).directory != first.directory


def test_what_a_killed_writer_left_is_cleared(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    spec = spec_of(pool, tmp_path, path)
    key = prepare_domain(spec).directory.name
    unfinished = spec.directory / f".{key}.tmp"
    (spec.directory / key).rename(unfinished)
    (unfinished / "tokens.bin").write_bytes(b"half")
    assert not prepare_domain(spec).reused
    assert not unfinished.exists()


def test_a_damaged_shard_is_named(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    directory = prepare_domain(spec_of(pool, tmp_path, path)).directory
    (directory / "tokens.bin").write_bytes(b"half")
    with pytest.raises(DataMissing, match=r"tokens\.bin"):
        TokenShard.open(directory)
    assert not prepare_domain(spec_of(pool, tmp_path, path)).reused
    assert TokenShard.open(directory).meta.tokens > 0
    (directory / META).unlink()
    with pytest.raises(DataMissing, match="not a prepared shard"):
        TokenShard.open(directory)


def test_too_little_text_names_the_domain(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", ["one document of some length"])
    with pytest.raises(TooLittleText, match="domain 'd'") as caught:
        prepare_domain(spec_of(pool, tmp_path, path))
    assert caught.value.domain == "d"
    assert not any(child.is_dir() for child in (tmp_path / "shards").iterdir())
    with pytest.raises(CorpusError, match=r"blank\.jsonl: holds no text"):
        prepare_domain(spec_of(pool, tmp_path, write_documents(tmp_path / "blank.jsonl", [" "])))


def test_the_tokenizer_never_sees_held_out_text(pool: Pool) -> None:
    files = tuple(pool.files.values())
    sample = list(training_sample(files, 0.05, 60_000))
    assert not any(is_held_out(document_digest(text), 0.05) for text in sample)
    assert 60_000 <= sum(len(text.encode()) for text in sample) < 60_000 + 3 * 1600


def test_the_smallest_type_that_holds_every_id() -> None:
    assert smallest_dtype(65536) == np.uint16
    assert smallest_dtype(65537) == np.uint32


def test_a_corpus_cut_by_its_smallest_hashes_is_split_like_any_other() -> None:
    texts = sorted(
        (f"document {index}" for index in range(20_000)), key=lambda text: sha256(text.encode()).digest()
    )
    cut = texts[:2000]
    held_out = sum(is_held_out(document_digest(text), 0.05) for text in cut)
    # Binomial(2000, 0.05) has mean 100 and standard deviation 9.7; the plain hash would hold out about 1000.
    assert 60 < held_out < 140


def test_content_keys_add_up_over_any_split_and_forget_files_and_order(pool: Pool, tmp_path: Path) -> None:
    texts = [f"text {i} " * 30 for i in range(80)]
    rows = [token for text in texts for token in [*pool.tokenizer.encode(text), pool.tokenizer.end_of_text]]
    np.save(tmp_path / "tokens.npy", np.array(rows, dtype=np.uint16))
    halves = [write_documents(tmp_path / f"{half}.jsonl", texts[half::2]) for half in range(2)]
    layouts = (
        (write_documents(tmp_path / "all.jsonl", texts),),
        (write_documents(tmp_path / "reversed.jsonl", texts[::-1]),),
        tuple(halves),
        (tmp_path / "tokens.npy",),
    )
    keys = {prepare_domain(spec_of(pool, tmp_path, *files)).meta.content for files in layouts}
    assert len(keys) == 1
    (whole,) = keys
    parts = [prepare_domain(spec_of(pool, tmp_path, half)).meta.content for half in halves]
    assert sum(int(part or "", 16) for part in parts) % 2**256 == int(whole or "", 16)
    assert len(whole or "") == 64
    twice = write_documents(tmp_path / "twice.jsonl", [*texts, texts[0]])
    assert prepare_domain(spec_of(pool, tmp_path, twice)).meta.content != whole


def test_a_shard_from_before_contents_were_noted_gets_its_key_and_keeps_its_tokens(
    pool: Pool, tmp_path: Path
) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    first = prepare_domain(spec_of(pool, tmp_path, path))
    meta = json.loads((first.directory / META).read_text())
    del meta["content"]
    (first.directory / META).write_text(json.dumps(meta))
    written_at = (first.directory / "tokens.bin").stat().st_mtime_ns
    again = prepare_domain(spec_of(pool, tmp_path, path))
    assert again.reused
    assert again.meta == TokenShard.open(first.directory).meta == first.meta
    assert (first.directory / "tokens.bin").stat().st_mtime_ns == written_at
