"""Token files of a trainer: every document once, whole, in its layout; and nothing twice."""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import read_token_documents
from proxy_models.text.token_files import TokenReader
from proxy_models.text.token_shard import META, TOKENS, ShardMeta, TokenShard
from proxy_models.text.token_writing import document_bounds, write_tokens

END = 0


def shard(directory: Path, documents: int = 50, vocabulary: int = 1000) -> tuple[TokenShard, list[bytes]]:
    """A shard of documents of different lengths, and each of them as bytes."""
    generator = np.random.default_rng(0)
    dtype = np.dtype("<u2" if vocabulary <= 2**16 else "<u4")
    texts = [
        np.append(generator.integers(1, vocabulary, size=generator.integers(1, 40)), END).astype(dtype)
        for _ in range(documents)
    ]
    directory.mkdir(parents=True)
    tokens = np.concatenate(texts)
    (directory / TOKENS).write_bytes(tokens.tobytes())
    counts = dict.fromkeys(
        (
            *("documents", "size_bytes", "held_out_documents", "held_out_bytes", "held_out_tokens"),
            *("evaluation_documents", "evaluation_bytes", "evaluation_tokens"),
        ),
        1,
    )
    meta = ShardMeta(
        key="key",
        tokenizer="t",
        vocabulary_size=vocabulary,
        end_of_text=END,
        dtype=dtype.str,
        tokens=len(tokens),
        **counts,
    )
    (directory / META).write_text(json.dumps(asdict(meta)))
    return TokenShard.open(directory), [text.tobytes() for text in texts]


def split(tokens: np.ndarray) -> list[bytes]:
    return [part.tobytes() for part in np.split(tokens, np.flatnonzero(tokens == END) + 1)[:-1]]


def test_olmo_core_reads_every_document_once_in_another_order(tmp_path: Path) -> None:
    source, texts = shard(tmp_path / "shard")
    written = write_tokens(source, tmp_path / "out" / "web", "olmo-core")
    found = split(np.fromfile(written.path, "<u2"))
    assert written.path == str(tmp_path / "out" / "web.npy")
    assert sorted(found) == sorted(texts)
    assert found != texts
    assert (written.tokens, written.documents) == (source.meta.tokens, 50)
    plain = write_tokens(source, tmp_path / "plain", "olmo-core", seed=None)
    assert Path(plain.path).read_bytes() == (tmp_path / "shard" / TOKENS).read_bytes()


@pytest.mark.parametrize(("vocabulary", "code", "dtype"), [(1000, 8, "<u2"), (100_000, 4, "<i4")])
def test_megatron_s_index_is_laid_out_as_its_own_builder_does(
    vocabulary: int, code: int, dtype: str, tmp_path: Path
) -> None:
    source, texts = shard(tmp_path / "shard", vocabulary=vocabulary)
    written = write_tokens(source, tmp_path / "web", "megatron")
    index = (tmp_path / "web.idx").read_bytes()
    assert written.path == str(tmp_path / "web")
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind, sequences, documents = struct.unpack("<QBQQ", index[9:34])
    assert (version, kind, sequences, documents) == (1, code, 50, 51)
    lengths = np.frombuffer(index, "<i4", 50, 34)
    offsets = np.frombuffer(index, "<i8", 50, 34 + 200)
    assert np.frombuffer(index, "<i8", 51, 34 + 200 + 400).tolist() == list(range(51))
    assert len(index) == 34 + 200 + 400 + 408
    tokens = np.fromfile(tmp_path / "web.bin", dtype)
    size = np.dtype(dtype).itemsize
    found = [
        tokens[at // size : at // size + length].astype(source.meta.dtype).tobytes()
        for at, length in zip(offsets.tolist(), lengths.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(texts)


def test_what_is_whole_is_left_and_what_is_half_is_written_again(tmp_path: Path) -> None:
    source, _ = shard(tmp_path / "shard")
    first = write_tokens(source, tmp_path / "web", "olmo-core")
    data = Path(first.path)
    content, inode = data.read_bytes(), data.stat().st_ino
    assert write_tokens(source, tmp_path / "web", "olmo-core") == first
    assert data.stat().st_ino == inode, "not written again"
    data.write_bytes(content[:-2])
    write_tokens(source, tmp_path / "web", "olmo-core")
    assert data.read_bytes() == content
    write_tokens(source, tmp_path / "web", "olmo-core", seed=1)
    assert data.read_bytes() != content
    assert not list(tmp_path.glob("*.partial"))


def test_a_layout_that_is_none_is_named(tmp_path: Path) -> None:
    source, _ = shard(tmp_path / "shard")
    with pytest.raises(ValueError, match="'mds'"):
        write_tokens(source, tmp_path / "web", "mds")


def test_documents_are_told_by_the_end_of_text_over_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_models.text.token_writing._BLOCK", 7)
    source, texts = shard(tmp_path / "shard")
    starts, ends = document_bounds(source)
    assert [source.tokens[a:b].tobytes() for a, b in zip(starts, ends, strict=True)] == texts
    written = write_tokens(source, tmp_path / "web", "olmo-core")
    assert sorted(split(np.fromfile(written.path, "<u2"))) == sorted(texts)


@pytest.mark.parametrize("layout", ["olmo-core", "megatron"])
def test_what_is_written_is_read_again_and_held_to_its_tokenizer(layout: str, tmp_path: Path) -> None:
    source, texts = shard(tmp_path / "shard")
    path = Path(write_tokens(source, tmp_path / "web", layout).path)
    data = path if layout == "olmo-core" else path.with_suffix(".bin")
    read = [np.append(ids, END).astype("<u2").tobytes() for ids in documents(data, source.meta.tokenizer)]
    assert sorted(read) == sorted(texts)
    with pytest.raises(CorpusError, match="of the tokenizer t, and the domain set's is another"):
        list(documents(data, "another"))


def documents(data: Path, fingerprint: str) -> Iterator[np.ndarray]:
    """A file's documents, as counting a domain reads them."""
    return read_token_documents(data, TokenReader(END, 1000, fingerprint))
