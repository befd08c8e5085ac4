"""A corpus in a store is the corpus it would be in a directory: documents, sizes, keys, errors."""

import gzip
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFile
from s3fs import S3FileSystem
from s3fs.core import S3File

from proxy_models.errors import CorpusError, ObjectMissing, ProxyError, TooManyObjects
from proxy_models.stores.file_system import matching_objects
from proxy_models.stores.object_path import DataPath, ObjectPath, data_path
from proxy_models.text.corpus import look_at, read_documents, read_token_documents
from proxy_models.text.data_roots import reading_below
from proxy_models.text.held_out import document_digest, is_held_out
from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
from proxy_models.text.task_file import read_task
from proxy_models.text.token_files import TokenReader
from proxy_models.text.tokenizer import train_byte_level_bpe
from tests.stores.conftest import jsonl, put

TEXTS = [f"document {number} " + f"word{number} " * (20 + number % 7) for number in range(300)]


def write_formats(folder: Path) -> list[Path]:
    """The same documents in every format that holds text, and ids in both that hold tokens."""
    folder.mkdir()
    lines = jsonl(TEXTS)
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "c.ndjson.zst").write_bytes(zstandard.compress(lines))
    (folder / "d.txt").write_text("\n\n".join(TEXTS * 3))
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "e.parquet", row_group_size=50)
    ids = np.arange(9000, dtype=np.uint16) % 300
    np.save(folder / "f.npy", ids)
    (folder / "g.bin").write_bytes(ids.tobytes())
    (folder / "g.bin.json").write_text('{"dtype": "uint16"}')
    return sorted(path for path in folder.iterdir() if not path.name.endswith(".bin.json"))


def upload(files: list[Path], corpora: str) -> list[DataPath]:
    for file in files:
        for one in (file, file.with_name(file.name + ".json")):
            if one.exists():
                put(f"{corpora}/{one.name}", one.read_bytes())
    return [data_path(f"{corpora}/{file.name}") for file in files]


def test_every_format_reads_the_same_from_a_store(corpora: str, tmp_path: Path) -> None:
    local = write_formats(tmp_path / "local")
    with reading_below([corpora]):
        for here, there in zip(local, upload(local, corpora), strict=True):
            with reading_below(None):
                (expected,) = look_at([here], 2**20)
            (look,) = look_at([there], 2**20)
            assert replace(look, path=here) == expected
            assert look.fault is None
            assert there.stat().st_size == here.stat().st_size
            if here.suffix in (".npy", ".bin"):
                mine = [ids.tolist() for ids in read_token_documents(there, TokenReader(299, 300))]
                with reading_below(None):
                    assert mine == [ids.tolist() for ids in read_token_documents(here, TokenReader(299, 300))]
                    assert look.text_bytes == 18_000
            else:
                mine = list(read_documents(there))
                with reading_below(None):
                    assert mine == list(read_documents(here))


def test_a_shard_has_one_key_wherever_its_text_lies(corpora: str, tmp_path: Path) -> None:
    local = write_formats(tmp_path / "local")
    tokenizer = train_byte_level_bpe(training_sample(local, 0.1, 50_000), 300, tmp_path / "t.json")
    specs = [
        PreparationSpec("web", tuple(files), tokenizer, tmp_path / name, 0.1, 4096, 512)
        for name, files in (("from-disk", local), ("from-store", upload(local, corpora)))
    ]
    here, there = map(prepare_domain, specs)
    assert here.directory.name == there.directory.name
    assert here.meta == there.meta
    assert (here.directory / "tokens.bin").read_bytes() == (there.directory / "tokens.bin").read_bytes()


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each read that reaches a store."""
    sizes: list[int] = []
    in_memory, over_http = MemoryFile.read, S3File._fetch_range

    def read(self: MemoryFile, size: int = -1) -> bytes:
        content = in_memory(self, size)
        sizes.append(len(content))
        return content

    def fetch(self: S3File, start: int, end: int) -> bytes:
        content = over_http(self, start, end)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(MemoryFile, "read", read)
    monkeypatch.setattr(S3File, "_fetch_range", fetch)
    return sizes


def sizes_of(files: list[DataPath]) -> int:
    beside = [file.with_name(file.name + ".json") for file in files if file.suffix == ".bin"]
    return sum(file.stat().st_size for file in (*files, *beside))


def test_every_byte_of_a_corpus_is_fetched_once(corpora: str, tmp_path: Path, fetched: list[int]) -> None:
    """Its digest, which names the shard, is taken while its text is read; unchanged it is not read again."""
    local = write_formats(tmp_path / "local")
    tokenizer = train_byte_level_bpe(training_sample(local, 0.1, 50_000), 300, tmp_path / "t.json")
    files = upload(local, corpora)
    spec = PreparationSpec("web", tuple(files), tokenizer, tmp_path / "shards", 0.1, 4096, 512)
    total = sizes_of(files)
    fetched.clear()
    first = prepare_domain(spec)
    assert sum(fetched) == total
    fetched.clear()
    assert prepare_domain(spec).meta == first.meta
    assert not fetched
    for file in files:
        put(f"{file.with_name('again-' + file.name)}", file.read_bytes())
        if file.suffix == ".bin":
            put(f"{file.with_name('again-' + file.name)}.json", b'{"dtype": "uint16"}')
    fetched.clear()
    renamed = tuple(file.with_name("again-" + file.name) for file in files)
    again = prepare_domain(replace(spec, files=renamed))
    assert sum(fetched) == total
    assert again.reused
    assert (again.directory, again.meta) == (first.directory, first.meta)


def test_a_text_whose_split_is_known_at_its_end_is_fetched_once_too(
    corpora: str, tmp_path: Path, fetched: list[int]
) -> None:
    candidates = [f"{index:08d} " + f"long text number {index} " * 5000 for index in range(30)]
    texts = [text for text in candidates if not is_held_out(document_digest(text), 0.02)]
    files = [data_path(put(f"{corpora}/{half}.jsonl", jsonl(texts[half::2]))) for half in range(2)]
    (tmp_path / "t.jsonl").write_bytes(jsonl(texts))
    sample = training_sample([tmp_path / "t.jsonl"], 0.02, 50_000)
    tokenizer = train_byte_level_bpe(sample, 300, tmp_path / "t.json")
    prepared = prepare_domain(PreparationSpec("books", tuple(files), tokenizer, tmp_path / "shards"))
    assert sum(fetched) == sizes_of(files) > 2 * 2**20
    assert prepared.meta.documents == len(texts)
    assert prepared.meta.size_bytes == sum(len(text.encode()) for text in texts)
    assert 0 < prepared.meta.held_out_bytes < 0.1 * prepared.meta.size_bytes


def test_a_version_is_seen_without_reading(corpora: str) -> None:
    path = data_path(put(f"{corpora}/a.jsonl", jsonl(TEXTS)))
    before = path.stat()
    assert path.stat() == before
    (listed,) = matching_objects(ObjectPath(path.protocol, f"{path.key[:-7]}*.jsonl"), 10, 60.0)
    assert (listed, listed.known) == (path, before), "listing says what looking says"
    put(str(path), jsonl([*TEXTS[1:], TEXTS[0]]))
    assert path.stat().st_size == before.st_size
    assert path.stat() != before


def test_globs_name_what_they_name_in_a_directory(corpora: str, tmp_path: Path) -> None:
    names = ["a/1.jsonl", "a/2.jsonl", "a/2.txt", "a/b/3.jsonl", "a/b/c/4.jsonl", "top.jsonl"]
    for name in names:
        put(f"{corpora}/{name}", b"x")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    root = data_path(corpora)
    assert isinstance(root, ObjectPath)
    for pattern in ("*.jsonl", "a/*.jsonl", "a/?.txt", "a/[12].jsonl", "a/*/*.jsonl", "a/**/*.jsonl"):
        found = matching_objects(ObjectPath(root.protocol, f"{root.key}/{pattern}"), 100, 60.0)
        here = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern) if path.is_file()}
        assert {str(one).removeprefix(f"{corpora}/") for one in found} == here, pattern


def test_a_glob_ends_where_too_much_has_to_be_looked_through(corpora: str) -> None:
    for number in range(3):
        put(f"{corpora}/{number}/a.jsonl", b"x")
    root = data_path(corpora)
    assert isinstance(root, ObjectPath)
    every = ObjectPath(root.protocol, f"{root.key}/**/a.jsonl")
    assert len(matching_objects(every, 6, 60.0)) == 3
    for most, seconds in ((5, 60.0), (6, -1.0)):
        with pytest.raises(TooManyObjects, match="name the folders"):
            matching_objects(every, most, seconds)


def test_a_folder_of_very_many_objects_is_not_listed_to_its_end(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        put(f"{s3}/corpora/{number}.jsonl", b"x")
    root = data_path(f"{s3}/corpora")
    assert isinstance(root, ObjectPath)
    listed: list[str] = []
    pages = S3FileSystem._list_pages

    async def counted(self: S3FileSystem, method: str, **asked: Any) -> Any:
        async for page in pages(self, method, **asked):
            listed.extend(one["Key"] for one in page.get("Contents", ()))
            yield page

    monkeypatch.setattr(S3FileSystem, "_list_pages", counted)
    every = ObjectPath(root.protocol, f"{root.key}/*.jsonl")
    with pytest.raises(TooManyObjects, match="name the folders"):
        matching_objects(every, 2, 60.0)
    assert 2 < len(listed) < 9
    assert len(matching_objects(every, 9, 60.0)) == 9


def test_what_is_not_there_or_not_allowed_is_named(corpora: str) -> None:
    path = data_path(put(f"{corpora}/a.jsonl", jsonl(TEXTS)))
    missing = data_path(f"{corpora}/gone.jsonl")
    with pytest.raises(ObjectMissing, match=f"{corpora}/gone.jsonl: there is no such object"):
        missing.stat()
    with pytest.raises(CorpusError, match=r"gone\.jsonl: cannot be read"), reading_below([corpora]):
        list(read_documents(missing))
    for roots in (["s3://another/corpora"], [f"{corpora}-other"], ["/data"], [f"{corpora}/a"]):
        with reading_below(roots), pytest.raises(CorpusError, match="outside the data roots"):
            list(read_documents(path))
    assert list(read_documents(path)) == TEXTS


def test_an_object_changed_while_it_is_read_is_not_mixed(corpora: str) -> None:
    first = jsonl([f"{'first ' * 200}{number}" for number in range(12_000)])
    path = data_path(put(f"{corpora}/a.jsonl", first))
    documents = read_documents(path)
    next(documents)
    put(f"{corpora}/a.jsonl", first.replace(b"first", b"other"))
    # What was read ahead of the change may come; of the new content nothing may follow it.
    rest = []
    with suppress(ProxyError):
        rest.extend(documents)
    assert not any("other" in text for text in rest)


def test_a_task_file_is_read_from_a_store(corpora: str) -> None:
    content = b'{"context": "a", "continuation": " b"}\n{"context": "c", "continuation": " d"}\n'
    path = data_path(put(f"{corpora}/task.jsonl.gz", gzip.compress(content)))
    assert [example.continuation for example in read_task(path)] == [" b", " d"]
