import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import choose, look_at, read_documents, read_token_documents
from proxy_models.text.formats.lines import LONG_TEXT
from proxy_models.text.task_file import TaskExample, read_task
from proxy_models.text.token_files import TokenReader

TEXTS = ["plain", "naïve ☃ snow\n", "  indented\nlines\n\n"]
LINES = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS).encode()


def compress(content: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(content)
    return zstandard.compress(content) if suffix == ".zst" else content


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_reads_the_same_documents_from_every_compression(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a.jsonl{suffix}", compress(LINES, suffix))
    assert list(read_documents(path)) == TEXTS
    path = written(tmp_path / f"a.txt{suffix}", compress("whole\n\nfile ☃".encode(), suffix))
    assert list(read_documents(path)) == ["whole\n\nfile ☃"]


def test_reads_frames_one_after_another(tmp_path: Path) -> None:
    middle = LINES.index(b"\n") + 1
    frames = zstandard.compress(LINES[:middle]) + zstandard.compress(LINES[middle:])
    assert list(read_documents(written(tmp_path / "a.jsonl.zst", frames))) == TEXTS


def test_reads_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"other": [1, 2, 3], "text": TEXTS}), tmp_path / "a.parquet")
    assert list(read_documents(tmp_path / "a.parquet")) == TEXTS
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None]}), tmp_path / "null.parquet")
    with pytest.raises(CorpusError, match=r"null\.parquet, line 2"):
        list(read_documents(tmp_path / "null.parquet"))
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"]}), tmp_path / "body.parquet")
    with pytest.raises(CorpusError, match="no column 'text'"):
        list(read_documents(tmp_path / "body.parquet"))
    with pytest.raises(CorpusError, match="Parquet"):
        list(read_documents(written(tmp_path / "not.parquet", b"no")))


def test_a_long_text_is_cut_at_paragraphs_and_loses_nothing(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {i} " + "word " * 300 + "\n\n" for i in range(30)]
    path = written(tmp_path / "book.txt", "".join(paragraphs).encode())
    documents = list(read_documents(path))
    assert "".join(documents) == "".join(paragraphs)
    assert len(documents) > 3
    assert all(document.endswith("\n\n") and len(document) < 2 * LONG_TEXT for document in documents)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{oops", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"body": "x"}', "has no string 'text'"),
        (b'{"text": 3}', "has no string 'text'"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "\\ud800"}', "surrogate"),
        (b"\0", "NUL"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_malformed_line_is_named(tmp_path: Path, suffix: str, line: bytes, reason: str) -> None:
    path = written(tmp_path / f"bad.jsonl{suffix}", compress(LINES + b"\n" + line + b"\n", suffix))
    with pytest.raises(CorpusError, match=reason) as caught:
        list(read_documents(path))
    assert caught.value.path == path
    assert caught.value.line == 5
    assert f"{path}, line 5" in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    content = compress(LINES * 2000, suffix)
    with pytest.raises(CorpusError, match="compression"):
        list(read_documents(written(tmp_path / f"cut.jsonl{suffix}", content[: len(content) // 2])))
    assert list(read_documents(written(tmp_path / f"plain.jsonl{suffix}", LINES))) == TEXTS, "content decides"


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"gone\.txt"):
        list(read_documents(tmp_path / "gone.txt"))
    for name in ("empty.txt", "blank.jsonl"):
        with pytest.raises(CorpusError, match=f"{name}: holds no text"):
            choose(look_at([written(tmp_path / name, b"\n \n")], 100))


def test_a_look_counts_and_stops(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", LINES)
    size = sum(len(text.encode()) for text in TEXTS)
    for look in look_at([path, path], 10**6):
        assert (look.text_bytes, look.complete) == (size, True)
    for look in look_at([path, path], 5):
        assert (look.sample, look.complete) == ("plain", False)


def token_file(path: Path, tokens: list[int], dtype: str) -> Path:
    array = np.array(tokens, dtype=dtype)
    if path.suffix == ".npy":
        np.save(path, array)
        return path
    path.with_name(path.name + ".json").write_text(json.dumps({"dtype": dtype}))
    return written(path, array.tobytes())


@pytest.mark.parametrize("name", ["a.npy", "a.bin"])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int64"])
@pytest.mark.parametrize("limit", [2**22, 4, 3])
def test_pretokenized_documents_end_at_end_of_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str, limit: int
) -> None:
    monkeypatch.setattr("proxy_models.text.token_files.MAX_DOCUMENT_TOKENS", limit)
    path = token_file(tmp_path / name, [5, 6, 0, 7, 0, 0, 8, 9, 3], dtype)
    documents = [document.tolist() for document in read_token_documents(path, TokenReader(0, 10))]
    assert documents == [[5, 6], [7], [8, 9, 3]]


def test_bad_token_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"id 12 at position 2 .* 10"):
        list(read_token_documents(token_file(tmp_path / "big.npy", [1, 2, 12], "uint16"), TokenReader(0, 10)))
    with pytest.raises(CorpusError, match=r"needs bare\.bin\.json"):
        list(read_token_documents(written(tmp_path / "bare.bin", b"1234"), TokenReader(0, 10)))
    np.save(tmp_path / "floats.npy", np.zeros(4))
    with pytest.raises(CorpusError, match="not a row of token ids"):
        list(read_token_documents(tmp_path / "floats.npy", TokenReader(0, 10)))
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CorpusError, match="not a row of token ids"):
        list(read_token_documents(written(tmp_path / "pickle.npy", stream.getvalue()), TokenReader(0, 10)))
    whole = token_file(tmp_path / "whole.npy", [1, 2, 3], "uint16").read_bytes()
    with pytest.raises(CorpusError, match="ends before the last of 3"):
        list(read_token_documents(written(tmp_path / "cut.npy", whole[:-1]), TokenReader(0, 10)))
    with pytest.raises(CorpusError, match="is empty, not token ids"):
        list(read_token_documents(written(tmp_path / "none.npy", b""), TokenReader(0, 10)))
    with pytest.raises(CorpusError, match="not a whole number of uint16 ids"):
        list(read_token_documents(written(tmp_path / "none.npy", b"no array!"), TokenReader(0, 10)))


def test_tasks_are_read_and_their_faults_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", b'{"context": "2+2=", "continuation": " \xc3\xa94"}\n')
    assert read_task(path) == (TaskExample("2+2=", " é4"),)
    for line, reason in (
        (b'{"context": "a"}', "'continuation'"),
        (b'{"context": "a", "continuation": ""}', "empty"),
    ):
        bad = written(tmp_path / "bad.jsonl", path.read_bytes() + line)
        with pytest.raises(CorpusError, match=rf"bad\.jsonl, line 2: .*{reason}"):
            read_task(bad)
    with pytest.raises(CorpusError, match="no examples"):
        read_task(written(tmp_path / "none.jsonl", b""))


def test_what_the_service_imports_is_free_of_torch() -> None:
    modules = [
        "config",
        "errors",
        "text.corpus",
        "text.held_out",
        "text.task_file",
        "text.token_shard",
        "training.run_spec",
        "training.mixture_sampler",
    ]
    code = "import sys\n" + "".join(f"import proxy_models.{name}\n" for name in modules)
    code += "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


@pytest.mark.parametrize("log", [27, 28, 31])
def test_zstandard_is_read_with_the_windows_its_tool_writes(tmp_path: Path, log: int) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log, hash_log=12, chain_log=12)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    content = stream.compress(b'{"text": "some text"}\n' * 100) + stream.flush()
    assert zstandard.get_frame_parameters(content).window_size == 2**log
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(content)
    assert list(read_documents(path)) == ["some text"] * 100
    larger = bytearray(content)
    larger[5] = (32 - 10) << 3  # the window descriptor of RFC 8878: 2^32 bytes
    path.write_bytes(larger)
    with pytest.raises(CorpusError, match=r"window is over the limit of 2147483648 bytes"):
        list(read_documents(path))


def test_a_number_of_5000_digits_is_a_fault_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "fine", "id": ' + "1" * 5000 + "}\n")
    with pytest.raises(CorpusError, match="not JSON") as refused:
        list(read_documents(path))
    assert refused.value.line == 2
    array = tmp_path / "b.json"
    array.write_text('[{"text": "fine"}, {"text": "fine", "id": ' + "1" * 5000 + "}]")
    with pytest.raises(CorpusError, match="not JSON") as refused:
        list(read_documents(array))
    assert refused.value.line == 2
