"""A small file that expands without end costs neither the memory nor the time of what it expands to."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fastapi.testclient import TestClient

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import read_documents
from proxy_models.text.formats.json_lines import FREE_BYTES, MAX_LINE_BYTES, MOST_EXPANSION, text_lines
from proxy_models.text.formats.opened import opened
from store.settings import Settings
from tests.hostile.conftest import problem

MANY = 400  # blocks of 256 KiB: a hundred megabytes


def gz(path: Path, block: bytes) -> None:
    with gzip.open(path, "wb", compresslevel=6) as file:
        for _ in range(MANY):
            file.write(block)


def zst(path: Path, block: bytes) -> None:
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as file:
        for _ in range(MANY):
            file.write(block)


COMPRESS = {"gz": gz, "zst": zst}
BLOCKS = {
    "one endless line": b"x" * 2**18,
    "empty lines": (b"\n" * 2**18),
    "empty documents": b'{"text": ""}\n' * (2**18 // 13),
    "documents": (json.dumps({"text": "word " * 1000}).encode() + b"\n") * 52,
}


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_bomb_is_refused_within_bounded_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.jsonl.{kind}"
    COMPRESS[kind](path, BLOCKS["one endless line"])
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(CorpusError, match=r"expands to over|longer than"), opened(path) as file:
            list(text_lines(file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One line, one step of decompression, and their copies.
    assert peak < 3 * MAX_LINE_BYTES


def test_a_bomb_in_a_request_is_refused_by_name(
    client: TestClient, settings: Settings, domain_set: dict[str, Any], write_corpus: Callable[..., str]
) -> None:
    for kind in COMPRESS:
        for what in BLOCKS:
            path = settings.data_directory / "corpora" / f"bomb.jsonl.{kind}"
            COMPRESS[kind](path, BLOCKS[what])
            domain_set["domains"][0]["files"] = [str(path)]
            answer = client.post("/v1/domain-sets", json=domain_set)
            if what == "documents":  # good text at its start; reading on is refused
                with pytest.raises(CorpusError, match="expands to over"):
                    for _ in read_documents(path):
                        pass
                continue
            found = problem(answer)
            assert found["code"] == "corpus_error"
            assert path.name in found["detail"]


def test_text_that_compresses_as_text_does_is_no_bomb(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{index} " * 30}) for index in range(100_000)]
    content = "\n".join(lines).encode()
    for kind, compressed in (("gz", gzip.compress(content)), ("zst", zstandard.compress(content))):
        path = tmp_path / f"fine.jsonl.{kind}"
        path.write_bytes(compressed)
        assert len(content) > FREE_BYTES
        assert len(content) < MOST_EXPANSION * len(compressed)
        with opened(path) as file:
            assert sum(1 for _ in text_lines(file)) == len(lines)
