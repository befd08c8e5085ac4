"""A small file that expands without end costs neither the memory nor the time of what it expands to."""

import gzip
import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from fastapi.testclient import TestClient

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import read_documents
from proxy_models.text.formats.lines import FREE_BYTES, MAX_LINE_BYTES, MOST_EXPANSION, text_lines
from proxy_models.text.formats.opened import opened
from service.http.app import create_app
from store.schema import upgrade
from store.settings import Settings
from tests.hostile.conftest import problem
from tests.service.conftest import TOKEN

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


ROW = "x" * 1_000_000
SHAPES = {
    "rows that share a value": ({"use_dictionary": True}, [ROW] * 256),
    "long rows": ({"use_dictionary": False}, [ROW] * 64),
    "rows of a structure": ({"use_dictionary": True}, [{"content": ROW}] * 256),
}


def parquet_bomb(path: Path, shape: str, **options: Any) -> Path:
    told, rows = SHAPES[shape]
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path, compression="zstd", **told, **options)
    assert path.stat().st_size < 2**17
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bomb_of_columns_is_refused_within_bounded_memory(tmp_path: Path, shape: str) -> None:
    """In a process of its own: what a library takes is seen there alone."""
    path = parquet_bomb(tmp_path / "bomb.parquet", shape)
    field = "text.content" if "structure" in shape else "text"
    program = (
        "import resource, sys; from pathlib import Path; from proxy_models.errors import CorpusError\n"
        "from proxy_models.text.corpus import read_documents; from proxy_models.text.reading import Reading\n"
        "import pyarrow.parquet\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    sum(1 for _ in read_documents(Path(sys.argv[1]), reading=Reading(text_field=sys.argv[2])))\n"
        "except CorpusError as error:\n    print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program, str(path), field]
    said, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "expands to over" in said
    assert int(kilobytes) < 120_000, "the quarter of a gigabyte that the rows are is not in memory"


def test_what_a_look_into_columns_takes_is_bounded(settings: Settings, domain_set: dict[str, Any]) -> None:
    """A value is decompressed whole, whatever its size: in a process that may not take more than it is given."""
    upgrade(settings.resolved_database_url)
    path = settings.data_directory / "corpora" / "long.parquet"
    value = random.Random(0).randbytes(50 * 2**20).hex()
    pyarrow.parquet.write_table(pyarrow.table({"text": [value]}), path, compression="none")
    domain_set["domains"][0]["files"] = [str(path)]
    tight = settings.model_copy(update={"compute_memory_bytes": 2**27})
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(tight), base_url="http://127.0.0.1", headers=headers) as client:
        answer = client.post("/v1/domain-sets", json=domain_set)
        # Python says so itself; a library in C++ ends the process.
        assert answer.json()["code"] in ("takes_too_much", "computation_lost")
        assert answer.status_code == 503
        assert client.get("/readyz").status_code == 200


def test_a_footer_is_held_against_its_file(tmp_path: Path) -> None:
    path = tmp_path / "fine.parquet"
    texts = [f"{index} " * 200 for index in range(3000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=700)
    assert list(read_documents(path)) == texts
    footer = pyarrow.parquet.read_metadata(path)
    short = tmp_path / "short.parquet"
    short.write_bytes(b"PAR1" + path.read_bytes()[-footer.serialized_size - 8 :])
    with pytest.raises(CorpusError, match="more bytes than it has"):
        list(read_documents(short))
