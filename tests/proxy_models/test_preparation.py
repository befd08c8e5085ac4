import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_models.errors import CorpusError, DataMissing
from proxy_models.text.held_out import document_digest, held_out_split, is_held_out
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


KILLED = """
import os, signal, sys
from pathlib import Path
from proxy_models.text.preparation import PreparationSpec, prepare_domain
from proxy_models.text.tokenizer import load_tokenizer
tokenizer, directory, *files = map(Path, sys.argv[1:])
spec = PreparationSpec("d", tuple(files), load_tokenizer(tokenizer), directory, 0.2, 4096, 16)
prepare_domain(spec, lambda progress: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_writer_leaves_no_shard_and_what_it_left_is_cleared(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    spec = spec_of(pool, tmp_path, path)
    (tmp_path / "tokenizer.json").write_text(pool.tokenizer.backend.to_str())
    command = [sys.executable, "-c", KILLED, tmp_path / "tokenizer.json", spec.directory, path]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    (unfinished,) = (child for child in spec.directory.iterdir() if child.is_dir())
    assert unfinished.name.startswith(".")
    prepared = prepare_domain(spec)
    assert not prepared.reused
    assert [child for child in spec.directory.iterdir() if child.is_dir()] == [prepared.directory]


def test_what_a_killed_writer_of_an_earlier_version_left_is_cleared(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", [f"text {i} " * 30 for i in range(50)])
    spec = spec_of(pool, tmp_path, path)
    key = prepare_domain(spec).directory.name
    unfinished = spec.directory / f".{key}.tmp"
    (spec.directory / key).rename(unfinished)
    (unfinished / "tokens.bin").write_bytes(b"half")
    assert not prepare_domain(spec).reused
    assert not unfinished.exists()


def test_a_file_that_was_changed_is_read_again(pool: Pool, tmp_path: Path) -> None:
    texts = [f"text {i} " * 30 for i in range(50)]
    path = write_documents(tmp_path / "a.jsonl", texts)
    spec = spec_of(pool, tmp_path, path)
    first = prepare_domain(spec)
    size, changed = path.stat().st_size, path.stat().st_mtime_ns
    write_documents(path, [text.replace("text", "word") for text in texts])
    os.utime(path, ns=(changed + 1, changed + 1))
    assert path.stat().st_size == size
    second = prepare_domain(spec)
    assert not second.reused
    assert second.directory != first.directory
    assert second.meta.content != first.meta.content


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


def test_a_tiny_domain_is_trained_on_whole_and_has_no_held_out_slice(pool: Pool, tmp_path: Path) -> None:
    path = write_documents(tmp_path / "a.jsonl", ["one document of some length"])
    prepared = prepare_domain(replace(spec_of(pool, tmp_path, path), minimum_held_out_bytes=1024))
    shard = TokenShard.open(prepared.directory)
    assert documents_of(shard, pool)[0] == "one document of some length"
    assert (prepared.meta.held_out_bytes, prepared.meta.evaluation_documents, shard.held_out()) == (0, 0, ())
    with pytest.raises(CorpusError, match=r"blank\.jsonl: holds no text"):
        prepare_domain(spec_of(pool, tmp_path, write_documents(tmp_path / "blank.jsonl", [" "])))


@given(st.lists(st.text("abc", min_size=1, max_size=40), min_size=1, max_size=30), st.floats(0.01, 0.49))
@settings(max_examples=200, deadline=None)
def test_every_split_leaves_text_on_both_sides_where_there_is_enough(
    texts: list[str], fraction: float
) -> None:
    split = held_out_split(texts, fraction, minimum_bytes=16)
    sides = [split.divide(document_digest(text), text) for text in texts]
    held_out, trained = (sum(len(side[at]) for side in sides) for at in (0, 1))
    assert trained > 0
    assert held_out + trained == sum(map(len, texts))
    if sum(map(len, set(texts))) >= 32:
        assert held_out >= 16
    else:
        assert held_out in (0, *range(16, sum(map(len, texts))))
    assert all("".join(side) == text for side, text in zip(sides, texts, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_plain_text_of_a_few_hundred_kilobytes_always_has_a_held_out_slice(
    pool: Pool, tmp_path: Path, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    words = generator.choice(
        ["a", "few", "words", "of", "no", "meaning"], int(generator.integers(70_000, 140_000))
    )
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(" ".join(words[at : at + 80]) for at in range(0, len(words), 80)))
    meta = prepare_domain(PreparationSpec("d", (path,), pool.tokenizer, tmp_path / "shards")).meta
    assert 280_000 < meta.size_bytes < 620_000
    assert 1024 <= meta.held_out_bytes < meta.size_bytes / 8


def long_texts(documents: int, size_bytes: int) -> list[str]:
    """Documents of ASCII none of which is held out by its digest at 2%."""
    candidates = (f"{index:08d} " + f"long text number {index} " * size_bytes for index in range(1000))
    texts = (text[:size_bytes] for text in candidates)
    return [text for text in texts if not is_held_out(document_digest(text), 0.02)][:documents]


@pytest.mark.parametrize(
    ("documents", "size_bytes", "held_out_bytes"),
    # 2% of the text where that is more than the 1024 bytes a slice needs, or the whole document if it is no more
    # than twice as long; nothing where that would be more than half.
    [
        (26, 19_500, 19_500),
        (20, 40_000, 16_000),
        (1, 500_000, 10_000),
        (1, 5_000, 1024),
        (9, 1_500, 1_500),
        (1, 2_100, 1024),
        (1, 1_500, 0),
        (1, 900, 0),
    ],
)
def test_a_few_long_documents_hold_out_the_fraction_of_their_text(
    pool: Pool, tmp_path: Path, documents: int, size_bytes: int, held_out_bytes: int
) -> None:
    texts = long_texts(documents, size_bytes)
    spec = PreparationSpec(
        "d", (write_documents(tmp_path / "a.jsonl", texts),), pool.tokenizer, tmp_path / "shards"
    )
    prepared = prepare_domain(spec)
    trained = sorted(set(documents_of(TokenShard.open(prepared.directory), pool)) - {""})
    assert prepared.meta.held_out_bytes == held_out_bytes
    assert sum(map(len, trained)) == documents * size_bytes - held_out_bytes
    if not held_out_bytes:
        assert trained == texts
        return
    whole = set(trained) & set(texts)
    assert len(whole) == documents - 1
    (divided,) = set(texts) - whole
    assert divided == min(texts, key=document_digest)
    rest = divided[held_out_bytes:]
    assert trained == sorted([*whole, *([rest] if rest else [])])
    for evaluated in texts_of(prepared.directory / "held_out.jsonl"):
        assert divided[:held_out_bytes].startswith(evaluated)
    sample = "".join(training_sample(spec.files, 0.02, 10**7))
    assert divided[:held_out_bytes] not in sample
    assert len(sample) == documents * size_bytes - held_out_bytes


def test_the_split_of_long_documents_forgets_files_order_and_format(pool: Pool, tmp_path: Path) -> None:
    texts = long_texts(20, 40_000)
    rows = [token for text in texts for token in [*pool.tokenizer.encode(text), pool.tokenizer.end_of_text]]
    np.save(tmp_path / "tokens.npy", np.array(rows, dtype=np.uint16))
    layouts = (
        (write_documents(tmp_path / "all.jsonl", texts),),
        (write_documents(tmp_path / "backwards.jsonl", texts[::-1]),),
        (
            write_documents(tmp_path / "odd.jsonl", texts[1::2]),
            write_documents(tmp_path / "even.jsonl", texts[::2]),
        ),
        (tmp_path / "tokens.npy",),
    )
    trained = []
    for number, files in enumerate(layouts):
        spec = PreparationSpec("d", files, pool.tokenizer, tmp_path / f"shards-{number}")
        trained.append(set(documents_of(TokenShard.open(prepare_domain(spec).directory), pool)) - {""})
    assert trained[0] == trained[1] == trained[2]
    # Token ids are cut between two tokens, so that at most a token's text lies on the other side.
    (rest,), (rest_of_ids,) = trained[0] - set(texts), trained[3] - set(texts)
    assert trained[3] & set(texts) == trained[0] & set(texts)
    assert abs(len(rest) - len(rest_of_ids)) < 200
    assert rest.endswith(rest_of_ids) or rest_of_ids.endswith(rest)


def test_whole_documents_are_held_out_wherever_they_come_to_a_slice() -> None:
    """Adding text moves nothing: such domains are split by the digests alone, as they always were."""
    texts = [f"text {index} " * 100 for index in range(400)]
    assert not held_out_split(texts, 0.02).beginnings
    by_digest = [text for text in texts if is_held_out(document_digest(text), 0.02)]
    assert sum(map(len, by_digest)) > 1024
    split = held_out_split(texts, 0.02)
    assert [text for text in texts if split.divide(document_digest(text), text)[0]] == by_digest


def test_the_documents_of_the_smallest_digests_do_not_depend_on_the_order_they_are_read_in() -> None:
    """Also where there are more of them than are remembered."""
    texts = [f"{index:06d}" for index in range(30_000)]
    split = held_out_split(texts, 1e-6)
    assert split == held_out_split(texts[::-1], 1e-6)
    expected = sorted(map(document_digest, texts))[: -(-1024 // 6)]
    assert sorted(split.beginnings) == expected


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
