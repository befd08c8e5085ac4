"""Token ids are read as whoever wrote them meant them, or refused: never as other ids or other documents."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import choose, look_at, read_documents, read_token_documents
from proxy_models.text.preparation import PreparationSpec, prepare_domain
from proxy_models.text.token_files import TokenReader
from proxy_models.text.token_shard import sample_of
from proxy_models.text.tokenizer import train_byte_level_bpe

EOT, SIZE = 0, 5000
READER = TokenReader(EOT, SIZE)
DOCUMENTS = [np.random.default_rng(number).integers(1, SIZE, 3 + 7 * number).tolist() for number in range(40)]
ENDED = [token for document in DOCUMENTS for token in (*document, EOT)]


def read(path: Path, reader: TokenReader = READER) -> list[list[int]]:
    return [ids.tolist() for ids in read_token_documents(path, reader)]


def say(path: Path, **said: Any) -> None:
    path.with_name(path.name + ".json").write_text(json.dumps(said))


def megatron(path: Path, documents: list[list[int]], dtype: str, sequences_per_document: int = 1) -> None:
    """As megatron.core.datasets.indexed_dataset writes it."""
    code = {"int32": 4, "int64": 5, "uint16": 8}[dtype]
    parts = [
        list(part)
        for document in documents
        for part in np.array_split(np.array(document), sequences_per_document)
    ]
    path.write_bytes(np.concatenate(parts).astype(dtype).tobytes())
    lengths = np.array([len(part) for part in parts], np.int32)
    offsets = np.cumsum([0, *lengths[:-1]], dtype=np.int64) * np.dtype(dtype).itemsize
    borders = np.arange(0, len(parts) + 1, sequences_per_document, dtype=np.int64)
    header = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(parts), len(borders))
    path.with_suffix(".idx").write_bytes(header + lengths.tobytes() + offsets.tobytes() + borders.tobytes())


def datatrove(path: Path, documents: list[list[int]], token_size: int) -> None:
    """As datatrove.pipeline.tokens.tokenizer.TokenizedFile writes it."""
    tokens = [token for document in documents for token in document]
    path.write_bytes(struct.pack(f"<{len(tokens)}{'H' if token_size == 2 else 'I'}", *tokens))
    ends = np.cumsum([len(document) for document in documents])
    path.with_name(path.name + ".index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    path.with_name(path.name + ".metadata").write_text(f"gpt2|{token_size}\n{len(tokens)}\n1 T")


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64"])
@pytest.mark.parametrize("parts", [1, 3])
def test_megatron_s_documents_are_those_of_its_index(tmp_path: Path, dtype: str, parts: int) -> None:
    megatron(tmp_path / "a.bin", DOCUMENTS, dtype, parts)
    assert read(tmp_path / "a.bin") == DOCUMENTS
    megatron(tmp_path / "a.bin", [[*document, EOT] for document in DOCUMENTS], dtype, parts)
    assert read(tmp_path / "a.bin") == DOCUMENTS, "with --append-eod"


@pytest.mark.parametrize("token_size", [2, 4])
def test_datatrove_s_documents_are_those_of_its_index(tmp_path: Path, token_size: int) -> None:
    datatrove(tmp_path / "a.ds", DOCUMENTS, token_size)
    assert read(tmp_path / "a.ds") == DOCUMENTS
    datatrove(tmp_path / "a.ds", [[*document, EOT] for document in DOCUMENTS], token_size)
    assert read(tmp_path / "a.ds") == DOCUMENTS


@pytest.mark.parametrize(("size", "dtype"), [(SIZE, "uint16"), (2**16, "uint16"), (100_000, "uint32")])
def test_an_array_without_a_header_is_of_the_type_that_holds_the_vocabulary(
    tmp_path: Path, size: int, dtype: str
) -> None:
    np.array(ENDED, dtype).tofile(tmp_path / "a.npy")
    assert read(tmp_path / "a.npy", TokenReader(EOT, size)) == DOCUMENTS
    np.array(ENDED, "uint32").tofile(tmp_path / "b.npy")
    say(tmp_path / "b.npy", dtype="uint32")
    assert read(tmp_path / "b.npy") == DOCUMENTS


def test_a_long_document_of_an_index_is_cut_and_nothing_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_models.text.token_files.MAX_DOCUMENT_TOKENS", 50)
    megatron(tmp_path / "a.bin", DOCUMENTS, "uint16")
    cut = read(tmp_path / "a.bin")
    assert cut == [part[at : at + 50] for part in DOCUMENTS for at in range(0, len(part), 50)]


@pytest.mark.parametrize(("true", "said"), [("uint32", "uint16"), ("int64", "int32"), ("int64", "uint16")])
def test_ids_said_to_be_of_another_type_are_refused_before_they_are_counted(
    tmp_path: Path, true: str, said: str
) -> None:
    np.array(ENDED, true).tofile(tmp_path / "a.bin")
    say(tmp_path / "a.bin", dtype=said)
    with pytest.raises(CorpusError, match=f"every other id is 0, so it is not {said}"):
        choose(look_at([tmp_path / "a.bin"], 1))
    with pytest.raises(CorpusError, match="every other id is 0"):
        read(tmp_path / "a.bin")
    np.array(ENDED, "uint16").tofile(tmp_path / "a.bin")
    say(tmp_path / "a.bin", dtype="uint32")
    with pytest.raises(CorpusError, match=r"outside the tokenizer's 5000"):
        read(tmp_path / "a.bin")


@pytest.mark.parametrize("end_of_text", [1, 50_256, 180_000])
def test_so_are_those_of_a_vocabulary_that_two_bytes_do_not_hold(tmp_path: Path, end_of_text: int) -> None:
    """Their upper halves are 0 to 3, and not 0: where documents end in a small id they would be cut anywhere."""
    reader = TokenReader(end_of_text, 200_000)
    documents = [np.random.default_rng(seed).integers(2, 200_000, 90).tolist() for seed in range(40)]
    ids = [token for document in documents for token in (*document, end_of_text)]
    np.array(ids, "uint32").tofile(tmp_path / "a.bin")
    say(tmp_path / "a.bin", dtype="uint16")
    with pytest.raises(CorpusError, match="every other id is below 16, so it is not uint16"):
        read(tmp_path / "a.bin", reader)
    say(tmp_path / "a.bin", dtype="uint32")
    assert read(tmp_path / "a.bin", reader) == documents


def test_ids_without_an_end_of_text_say_so(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([*ENDED, EOT], "uint16")[np.array([*ENDED, EOT]) != EOT])
    with pytest.raises(CorpusError, match=r"none of its first \d+ ids is the end-of-text 0, .* a\.npy\.json"):
        read(tmp_path / "a.npy")
    say(tmp_path / "a.npy", end_of_text=None)
    assert read(tmp_path / "a.npy") == [[token for document in DOCUMENTS for token in document]]
    say(tmp_path / "a.npy", end_of_text="</s>")
    with pytest.raises(CorpusError, match="is not a token id"):
        read(tmp_path / "a.npy")


def test_documents_of_one_id_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([7, 9] * 2000, "uint16"))
    with pytest.raises(CorpusError, match=r"1024 of its first 1024 documents are a single id"):
        read(tmp_path / "a.npy", TokenReader(9, SIZE))


def test_a_sidecar_s_fingerprint_is_held_to_the_tokenizer(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(ENDED, "uint16"))
    say(tmp_path / "a.npy", tokenizer="abc")
    assert look_at([tmp_path / "a.npy"], 1)[0].tokenizer == "abc"
    assert read(tmp_path / "a.npy", TokenReader(EOT, SIZE, "abc")) == DOCUMENTS
    with pytest.raises(CorpusError, match="of the tokenizer abc, and the domain set's is def"):
        read(tmp_path / "a.npy", TokenReader(EOT, SIZE, "def"))


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    megatron(tmp_path / "a.bin", DOCUMENTS, "uint16")
    index = (tmp_path / "a.idx").read_bytes()
    for content, reason in (
        (index[:-8], "does not have the 40 sequences and 41 borders it says"),
        (index[:17] + b"\x07" + index[18:], "no index of token ids"),
        (index[:20], "no index of token ids|does not have"),
        (index[:-8] + struct.pack("<q", 99), "begins behind the last sequence"),
    ):
        (tmp_path / "a.idx").write_bytes(content)
        with pytest.raises(CorpusError, match=reason):
            read(tmp_path / "a.bin")
    datatrove(tmp_path / "a.ds", DOCUMENTS, 2)
    (tmp_path / "a.ds").write_bytes((tmp_path / "a.ds").read_bytes()[:-2])
    with pytest.raises(CorpusError, match=r"a\.ds\.index: tells of \d+ ids, and a\.ds has"):
        read(tmp_path / "a.ds")
    (tmp_path / "a.ds.index").unlink()
    with pytest.raises(CorpusError, match=r"a\.ds\.index: cannot be read"):
        read(tmp_path / "a.ds")


def test_a_folder_of_ids_leaves_its_notes_out(tmp_path: Path) -> None:
    megatron(tmp_path / "a.bin", DOCUMENTS, "uint16")
    datatrove(tmp_path / "b.ds", DOCUMENTS, 2)
    np.array(ENDED, "uint16").tofile(tmp_path / "c.npy")
    say(tmp_path / "c.npy", dtype="uint16")
    (tmp_path / "c.csv").write_text("start,end,id,src,loc\n" + "0,4,a,b,1\n" * 5)  # dolma's notes
    choice = choose(look_at(sorted(tmp_path.iterdir()), 1))
    assert [look.path.name for look in choice.taken] == ["a.bin", "b.ds", "c.npy"]
    assert len(choice.left_out) == 5
    with pytest.raises(CorpusError, match="holds token ids of Megatron, not text"):
        list(read_documents(tmp_path / "a.bin"))


def test_a_shard_of_ids_is_that_of_its_text_and_shows_it(tmp_path: Path) -> None:
    texts = [f"document {number} says " + f"word{number % 9} " * 40 for number in range(300)]
    tokenizer = train_byte_level_bpe(texts, 400, tmp_path / "t.json")
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    ids = tokenizer.encode_batch(texts)
    megatron(tmp_path / "a.bin", ids, "uint16")
    datatrove(tmp_path / "b.ds", ids, 2)
    np.array([token for row in ids for token in (*row, tokenizer.end_of_text)], "uint16").tofile(
        tmp_path / "c.npy"
    )
    shards = [
        prepare_domain(
            PreparationSpec("d", (tmp_path / name,), tokenizer, tmp_path / "shards", 0.1, 4096, 512)
        )
        for name in ("text.jsonl", "a.bin", "b.ds", "c.npy")
    ]
    for shard in shards:
        assert shard.meta.content == shards[0].meta.content
        assert shard.meta.tokens == shards[0].meta.tokens
        assert (shard.directory / "tokens.bin").read_bytes() == (
            shards[0].directory / "tokens.bin"
        ).read_bytes()
        sample = sample_of(shard.directory)
        assert sample is not None
        assert any(text.startswith(sample) for text in texts)
