"""What was inside the data roots when it was posted and leads outside when it is read is not read."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import choose, look_at, read_documents
from proxy_models.text.data_roots import reading_below
from proxy_models.text.tokenizer import load_tokenizer

LINE = json.dumps({"text": "secret " * 10}).encode() + b"\n"


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".gz":
            path.write_bytes(gzip.compress(LINE))
        case ".zst":
            path.write_bytes(zstandard.compress(LINE))
        case ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": ["secret"]}), path)
        case ".npy":
            np.save(path, np.arange(9, dtype=np.uint16))
        case ".bin":
            path.write_bytes(bytes(18))
            path.with_name(path.name + ".json").write_text('{"dtype": "uint16"}')
        case _:
            path.write_bytes(LINE)
    return path


def read(path: Path) -> int:
    if path.suffix in (".npy", ".bin"):
        return choose(look_at([path], 1)).taken[0].text_bytes
    return len(list(read_documents(path)))


NAMES = ["a.jsonl", "a.txt", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.npy", "a.bin"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_or_folder_exchanged_for_a_link_is_not_read(tmp_path: Path, name: str) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    posted = write(root / "folder" / name)
    write(elsewhere / name)
    with reading_below([root]):
        assert read(posted) > 0
        posted.unlink()
        posted.symlink_to(elsewhere / name)
        with pytest.raises(CorpusError, match="outside the data roots"):
            read(posted)
        for file in (root / "folder").iterdir():
            file.unlink()
        (root / "folder").rmdir()
        (root / "folder").symlink_to(elsewhere)
        with pytest.raises(CorpusError, match="outside the data roots"):
            read(posted)
    assert read(posted) > 0, "a library without roots reads what it is given"


def test_a_sidecar_that_leads_outside_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "root" / "a.bin")
    sidecar = path.with_name("a.bin.json")
    sidecar.rename(tmp_path / "outside.json")
    sidecar.symlink_to(tmp_path / "outside.json")
    with reading_below([tmp_path / "root"]), pytest.raises(CorpusError, match="outside the data roots"):
        read(path)


def test_a_tokenizer_that_leads_outside_is_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "tokenizer.json"
    outside.write_text("{}")
    link = tmp_path / "root" / "tokenizer.json"
    link.parent.mkdir()
    link.symlink_to(outside)
    with reading_below([tmp_path / "root"]), pytest.raises(CorpusError, match="outside the data roots"):
        load_tokenizer(link)


def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(CorpusError, match="not a regular file"):
        list(read_documents(tmp_path / "pipe.jsonl"))
