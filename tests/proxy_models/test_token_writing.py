"""Token files of a trainer: every document once, whole, in its layout; and nothing twice."""

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from proxy_models.errors import CorpusError, DataMissing, StorageFailed
from proxy_models.text.corpus import read_token_documents
from proxy_models.text.token_files import TokenReader
from proxy_models.text.token_shard import META, TOKENS, ShardMeta, TokenShard
from proxy_models.text.token_writing import Order, document_bounds, write_tokens

END = 0
RAW = Order("olmo-core")


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
    written = write_tokens(source, tmp_path / "out" / "web", RAW)
    found = split(np.fromfile(written.path, "<u2"))
    assert written.path == str(tmp_path / "out" / "web" / "tokens.npy")
    assert sorted(found) == sorted(texts)
    assert found != texts
    assert (written.tokens, written.documents) == (source.meta.tokens, 50)
    plain = write_tokens(source, tmp_path / "plain", Order("olmo-core", seed=None))
    assert Path(plain.path).read_bytes() == (tmp_path / "shard" / TOKENS).read_bytes()


@pytest.mark.parametrize(("vocabulary", "code", "dtype"), [(1000, 8, "<u2"), (100_000, 4, "<i4")])
def test_megatron_s_index_is_laid_out_as_its_own_builder_does(
    vocabulary: int, code: int, dtype: str, tmp_path: Path
) -> None:
    source, texts = shard(tmp_path / "shard", vocabulary=vocabulary)
    written = write_tokens(source, tmp_path / "web", Order("megatron"))
    index = (tmp_path / "web" / "tokens.idx").read_bytes()
    assert written.path == str(tmp_path / "web" / "tokens")
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind, sequences, documents = struct.unpack("<QBQQ", index[9:34])
    assert (version, kind, sequences, documents) == (1, code, 50, 51)
    lengths = np.frombuffer(index, "<i4", 50, 34)
    offsets = np.frombuffer(index, "<i8", 50, 34 + 200)
    assert np.frombuffer(index, "<i8", 51, 34 + 200 + 400).tolist() == list(range(51))
    assert len(index) == 34 + 200 + 400 + 408
    tokens = np.fromfile(tmp_path / "web" / "tokens.bin", dtype)
    size = np.dtype(dtype).itemsize
    found = [
        tokens[at // size : at // size + length].astype(source.meta.dtype).tobytes()
        for at, length in zip(offsets.tolist(), lengths.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(texts)


def test_what_is_whole_is_left_and_what_is_half_is_written_again(tmp_path: Path) -> None:
    source, _ = shard(tmp_path / "shard")
    first = write_tokens(source, tmp_path / "web", RAW)
    data = Path(first.path)
    content, inode = data.read_bytes(), data.stat().st_ino
    assert write_tokens(source, tmp_path / "web", RAW) == first
    assert data.stat().st_ino == inode, "not written again"
    data.write_bytes(content[:-2])
    write_tokens(source, tmp_path / "web", RAW)
    assert data.read_bytes() == content
    write_tokens(source, tmp_path / "web", Order("olmo-core", seed=1))
    assert data.read_bytes() != content
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_layout_that_is_none_is_named(tmp_path: Path) -> None:
    source, _ = shard(tmp_path / "shard")
    with pytest.raises(ValueError, match="'mds'"):
        write_tokens(source, tmp_path / "web", Order("mds"))


@pytest.mark.parametrize("chunk", [64, 2**26])
@pytest.mark.parametrize("layout", ["streaming", "litdata"])
def test_rows_are_the_shard_s_tokens_in_order_however_they_are_chunked(
    layout: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_models.text.token_layouts._CHUNK_BYTES", chunk)
    for module in ("token_writing", "token_layouts"):
        monkeypatch.setattr(f"proxy_models.text.{module}.BLOCK", 37)
    source, _ = shard(tmp_path / "shard")
    written = write_tokens(source, tmp_path / "web", Order(layout, 8, seed=None))
    rows = mds_rows(tmp_path / "web") if layout == "streaming" else litdata_rows(tmp_path / "web", 8)
    assert rows.tolist() == np.asarray(source.tokens)[: source.meta.tokens // 8 * 8].reshape(-1, 8).tolist()
    assert (written.path, written.tokens) == (str(tmp_path / "web"), rows.size)
    assert (len(list((tmp_path / "web").glob("*0*"))) > 1) == (chunk == 64)


def mds_rows(directory: Path) -> np.ndarray:
    """As `streaming/base/format/mds/reader.py` finds samples: by the offsets at the beginning of a shard."""
    rows = []
    for told in json.loads((directory / "index.json").read_text())["shards"]:
        data = (directory / told["raw_data"]["basename"]).read_bytes()
        assert len(data) == told["raw_data"]["bytes"]
        (count,) = struct.unpack_from("<I", data)
        assert count == told["samples"]
        offsets = np.frombuffer(data, "<u4", count + 1, 4)
        rows += [np.frombuffer(data[a:b], "<i4") for a, b in pairwise(offsets)]
    return np.array(rows)


def litdata_rows(directory: Path, length: int) -> np.ndarray:
    """As `TokensLoader` cuts them: so many tokens of a chunk, behind its header."""
    rows = []
    for told in json.loads((directory / "index.json").read_text())["chunks"]:
        data = (directory / told["filename"]).read_bytes()
        assert len(data) == told["chunk_bytes"]
        tokens = np.frombuffer(data, "<i4", offset=(1 + told["chunk_size"] + 1) * 4)
        assert len(tokens) == told["dim"]
        rows.append(tokens.reshape(-1, length))
    return np.concatenate(rows)


def test_axolotl_s_rows_read_the_shard_as_often_as_the_mixture_does(tmp_path: Path) -> None:
    source, texts = shard(tmp_path / "shard")
    total = source.meta.tokens
    count = 2 * total // 8 + 3
    written = write_tokens(source, tmp_path / "web", Order("axolotl", 8, count))
    table = pq.read_table(written.path).to_pydict()
    assert set(table) == {"input_ids", "attention_mask", "labels"}
    assert table["labels"] == table["input_ids"]
    assert {len(row) for row in table["input_ids"]} == {8}
    assert (len(table["input_ids"]), written.tokens) == (count, 8 * count)
    assert {value for row in table["attention_mask"] for value in row} == {1}
    stream = np.concatenate(table["input_ids"]).astype("<u2")
    first, second = stream[:total], stream[total : 2 * total]
    assert sorted(split(first)) == sorted(split(second)) == sorted(texts)
    assert split(first) != split(second), "in another order"


def test_a_shard_of_nothing_cannot_be_repeated_and_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty, _ = shard(tmp_path / "empty", documents=1)
    (tmp_path / "empty" / TOKENS).write_bytes(b"")
    empty = replace(empty, meta=replace(empty.meta, tokens=0))
    with pytest.raises(DataMissing, match="no tokens"):
        write_tokens(empty, tmp_path / "web", Order("axolotl", 8, 5))
    source, _ = shard(tmp_path / "shard")
    with pytest.raises(StorageFailed, match="GB left"):
        write_tokens(source, tmp_path / "web", Order("axolotl", 2048, 10**12))
    assert not (tmp_path / "web").exists()


def test_documents_are_told_by_the_end_of_text_over_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("token_writing", "token_layouts"):
        monkeypatch.setattr(f"proxy_models.text.{module}.BLOCK", 7)
    source, texts = shard(tmp_path / "shard")
    starts, ends = document_bounds(source)
    assert [source.tokens[a:b].tobytes() for a, b in zip(starts, ends, strict=True)] == texts
    written = write_tokens(source, tmp_path / "web", RAW)
    assert sorted(split(np.fromfile(written.path, "<u2"))) == sorted(texts)


@pytest.mark.parametrize("layout", ["olmo-core", "megatron"])
def test_what_is_written_is_read_again_and_held_to_its_tokenizer(layout: str, tmp_path: Path) -> None:
    source, texts = shard(tmp_path / "shard")
    path = Path(write_tokens(source, tmp_path / "web", Order(layout)).path)
    data = path if layout == "olmo-core" else path.with_suffix(".bin")
    read = [np.append(ids, END).astype("<u2").tobytes() for ids in documents(data, source.meta.tokenizer)]
    assert sorted(read) == sorted(texts)
    with pytest.raises(CorpusError, match="of the tokenizer t, and the domain set's is another"):
        list(documents(data, "another"))


def documents(data: Path, fingerprint: str) -> Iterator[np.ndarray]:
    """A file's documents, as counting a domain reads them."""
    return read_token_documents(data, TokenReader(END, 1000, fingerprint))
