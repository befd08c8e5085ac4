"""A file is told by what is in it: the same documents under any name, and what is no text refused by its name."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet
import pytest
import zstandard

from proxy_models.errors import CorpusError
from proxy_models.text.corpus import choose, look_at, read_documents
from proxy_models.text.data_roots import Digests
from proxy_models.text.formats.catalogue import FORMATS, format_of
from proxy_models.text.formats.opened import opened
from proxy_models.text.preparation import PreparationSpec, prepare_domain
from proxy_models.text.reading import BY_CONTENT, Reading
from proxy_models.text.tokenizer import train_byte_level_bpe

TEXTS = ["plain", "naïve ☃ snow\n", "  indented\nlines\n\n", "x" * 20_000]
LINES = "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS).encode()
TABLE = pyarrow.table({"id": [1, 2, 3, 4], "text": TEXTS})


def sink(write: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def arrow_stream() -> bytes:
    content = io.BytesIO()
    with pyarrow.ipc.new_stream(content, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return content.getvalue()


PARQUET = sink(lambda content: pyarrow.parquet.write_table(TABLE, content))
RECORDS = {
    "JSON lines": LINES,
    "JSON lines with a mark": b"\xef\xbb\xbf" + LINES,
    "JSON lines behind blank ones": b"\n\r\n" + LINES.replace(b"\n", b"\r\n"),
    "a JSON array": json.dumps([{"text": text} for text in TEXTS]).encode(),
    "a JSON array over lines": json.dumps([{"text": text} for text in TEXTS], indent=2).encode(),
    "a JSON array of strings": json.dumps(TEXTS, ensure_ascii=False).encode(),
    "Parquet": PARQUET,
    "Arrow": sink(lambda content: pyarrow.feather.write_feather(TABLE, content)),
    "an Arrow stream": arrow_stream(),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": bytes,
    "gzip": gzip.compress,
    "Zstandard": zstandard.compress,
    "Zstandard behind a skippable frame": lambda raw: (
        b"\x50\x2a\x4d\x18\x02\0\0\0ab" + zstandard.compress(raw)
    ),
    "bzip2": bz2.compress,
    "bzip2 of two streams": lambda raw: bz2.compress(raw[:9]) + bz2.compress(raw[9:]),
    "xz": lzma.compress,
}
NAMES = [
    "a.jsonl",
    "a.json",
    "a.json.gz",
    "a.json.zst",
    "a.jsonl.1",
    "a",
    "part-00000",
    "a.txt",
    "a.xz",
    "a.zstd",
]


@pytest.mark.parametrize("kind", RECORDS)
def test_documents_are_the_same_under_every_name(tmp_path: Path, kind: str) -> None:
    for name in [*NAMES, "a.parquet", "a.arrow"]:
        path = tmp_path / name
        path.write_bytes(RECORDS[kind])
        assert list(read_documents(path)) == TEXTS, name


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_compression_is_told_by_its_content(tmp_path: Path, compression: str) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.write_bytes(COMPRESSIONS[compression](LINES))
        assert list(read_documents(path)) == TEXTS, name
        path.write_bytes(COMPRESSIONS[compression](RECORDS["a JSON array"]))
        assert list(read_documents(path)) == TEXTS, name
        path.write_bytes(COMPRESSIONS[compression]("Ein Text.\n\nÜber nichts.".encode()))
        if "json" not in name:
            assert list(read_documents(path)) == ["Ein Text.\n\nÜber nichts."], name


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name != "nothing"])
def test_a_compression_that_is_cut_short_is_an_error(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.jsonl"
    noise = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(200))
    content = COMPRESSIONS[compression](LINES + json.dumps({"text": noise}).encode())
    path.write_bytes(content[: len(content) - 40])
    with pytest.raises(CorpusError, match="broken compression"):
        list(read_documents(path))


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, LINES)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(LINES)
        archive.addfile(member, io.BytesIO(LINES))
    return content.getvalue()


def database(folder: Path) -> bytes:
    path = folder / "scratch.db"
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE texts (text)")
    return path.read_bytes()


def npz() -> bytes:
    return sink(lambda content: np.savez(content, ids=np.arange(9, dtype=np.uint16)))


REFUSED: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "npz": (lambda folder: npz(), "a zip archive"),
    "zip": (lambda folder: zipped("a.jsonl"), "a zip archive"),
    "tar": (lambda folder: tarred(), "a tar archive"),
    "tar.gz": (lambda folder: gzip.compress(tarred()), "a tar archive"),
    "parquet.gz": (lambda folder: gzip.compress(PARQUET), "compressed Parquet"),
    "jsonl.gz.gz": (lambda folder: gzip.compress(gzip.compress(LINES)), "compressed twice"),
    "orc": (lambda folder: sink(lambda content: pyarrow.orc.write_table(TABLE, content)), "ORC"),
    "sqlite": (database, "an SQLite database"),
    "lz4": (lambda folder: pyarrow.compress(LINES, codec="lz4", asbytes=True), "LZ4"),
    "pdf": (lambda folder: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "PDF"),
    "warc": (lambda folder: b"WARC/1.0\r\nWARC-Type: warcinfo\r\n", "a web archive"),
    "lfs": (lambda folder: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "Git LFS"),
    "utf-16": (lambda folder: "Some text of a Windows machine.".encode("utf-16"), "UTF-16"),
    "utf-16-le": (lambda folder: "Some text without a mark.".encode("utf-16-le"), "UTF-16"),
    "csv": (lambda folder: b"id,text\n1,first\n2,second\n3,third\n4,fourth\n", "CSV with a header"),
    "tsv": (lambda folder: b"url\ttitle\tbody\n" + b"a\tb\tc d e\n" * 900, "CSV with a header"),
    "json": (
        lambda folder: json.dumps({"text": "a", "n": [1]}, indent=2).encode(),
        "neither lines of objects",
    ),
    "json-seq": (lambda folder: b'\x1e{"text": "a"}\n\x1e{"text": "b"}\n', "neither lines of objects"),
    "geojson": (lambda folder: json.dumps([[1, 2], [3, 4]]).encode(), "neither lines of objects"),
    "md5": (lambda folder: b"9e107d9d372bb6826bd81d3542a419d6  a.jsonl\n" * 3, "a list of checksums"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_text_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    content, name = REFUSED[kind]
    for suffix in ("", ".txt", f".{kind}", *([] if kind == "lz4" else [".npy", ".jsonl"])):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content(tmp_path))
        if kind == "lz4":  # pyarrow writes a raw block, which has no mark
            path.write_bytes(b"\x04\x22\x4d\x18" + path.read_bytes())
        if suffix == ".npy" and not path.read_bytes().startswith((b"PK", b"%PDF", b"SQL", b"ORC", b"WARC")):
            continue
        with pytest.raises(CorpusError, match=name) as caught:
            list(read_documents(path))
        assert str(path) in str(caught.value)
        assert "; " in str(caught.value), "what to do"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'text\n"hello, world"\n' * 9),  # one column has no delimiter
        ("a.csv", b"id,text\n1,he said, unquoted\n2,done\n"),
        ("a.csv", b'id,text\n1,a "quote" of it\n'),
        ("a.csv", b'"id";"text"\r\n1;"a"\r\n'),
        (
            "a",
            b",text,label\n" + b'0,"hello, world",1\n' * 9,
        ),  # as pandas writes it where nobody says otherwise
        ("a", b",text\n" + b'0,"hello\nworld"\n' * 9),
    ],
)
def test_csv_is_told_by_its_header_where_its_name_says_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match="is CSV with a header"):
        list(read_documents(tmp_path / name))


PROSE = {
    "heading.txt": "Text\n\nA text, of which the first line is a heading.\n",
    "rows.csv": "1,a\n2,b\n",
    "a.txt": "Dear Anna,\nI came, I saw, I wrote.\nYours, B.\n",
    "poem.txt": "Red, red rose\nBlue, blue sea\nTrue, true me\nFree, free thee\nNew, new lea\n",
    "a.md": "# Title\n\n[1]: http://x\n[[Category:Towns]]\n{{cite|a=b}}\n",
    "wiki.txt": '[[File:a.png]] {"quoted"} text\n',
    "a.py": "import os, sys, re\n\nx = {'a': 1}\nprint(os, sys, re)\n",
    "a.tex": '{\\bf Bold} text, and "quotes": yes\n',
    "a.css": 'a {color: red}\n{"not": json\n',
    "dialogue.txt": '"Yes," he said.\n"No," she said.\n',
    "list.txt": '["Quoted" and bracketed] text\n',
    "a.log": "2024-01-01,12:00:00 started\n2024-01-01,12:00:01 ended\n",
    "cn.txt": "你好，世界。\n" * 200,
    "short": "a,b\n1,2\n",
}


@pytest.mark.parametrize("name", PROSE)
def test_prose_and_code_are_plain_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PROSE[name])
    assert list(read_documents(tmp_path / name)) == [PROSE[name]]


def test_what_is_refused_as_text_is_read_where_that_is_said(tmp_path: Path) -> None:
    for kind in ("csv", "json", "md5"):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(REFUSED[kind][0](tmp_path))
        assert list(read_documents(path, reading=Reading(format="text"))) == [path.read_text()]


def test_a_damaged_array_names_its_element(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    good = json.dumps({"text": "a" * 300_000})
    for content, reason in (
        (f"[{good}, {good}, {{]", "line 3: not JSON"),
        (f"[{good}, {good} {good}]", "line 2: not a JSON array: there is no '\\]'"),
        (f"[{good}, {good}", "line 2: not a JSON array: there is no '\\]'"),
        (f"[{good}] more", "something after its array"),
        (f"[{good}, 7]", "line 2: an element is neither"),
        (f'[{good}, {{"text": 7}}]', "line 2: has no string 'text'"),
    ):
        path.write_text(content)
        with pytest.raises(CorpusError, match=reason):
            list(read_documents(path))


def test_every_format_has_a_name_of_its_own_and_is_read_or_says_what_to_do() -> None:
    assert len({one.name for one in FORMATS}) == len(FORMATS)
    for one in FORMATS:
        assert (one.family is None) == bool(one.advice)
        assert one.family in (None, "nothing") or (one.documents is None) != (one.layout is None)


def test_every_format_is_on_its_page_with_what_to_do() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    for one in FORMATS:
        assert f"{one.name} | {one.advice} |" in page if one.advice else one.name in page, one.name


def test_a_link_into_a_store_of_blobs_is_read_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for number, (name, content) in enumerate(RECORDS.items()):
        blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (tmp_path / f"{number}.parquet").symlink_to(blob)
        assert list(read_documents(tmp_path / f"{number}.parquet")) == TEXTS, name


def test_shards_of_before_are_found_again(tmp_path: Path) -> None:
    """The key of a shard is of layout, suffix, content, tokenizer and split, as it was when suffixes told formats."""
    texts = [f"document {number} " * 30 for number in range(300)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    tokenizer = train_byte_level_bpe(texts, 300, tmp_path / "t.json")
    for name, content, suffix in (
        ("a.jsonl", lines, ".jsonl"),
        ("a.ndjson.gz", gzip.compress(lines), ".ndjson"),
        ("a.md", "\n\n".join(texts).encode(), ".md"),
        (
            "a.parquet",
            sink(lambda out: pyarrow.parquet.write_table(pyarrow.table({"text": texts}), out)),
            ".parquet",
        ),
        ("a.json.gz", gzip.compress(lines), ".jsonl"),  # was read as plain text, and has a new key
    ):
        (tmp_path / name).write_bytes(content)
        spec = PreparationSpec("d", (tmp_path / name,), tokenizer, tmp_path / "shards", 0.1, 4096, 512)
        files = [[suffix, hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()]]
        key = json.dumps([2, files, tokenizer.fingerprint, 0.1, 4096])
        assert prepare_domain(spec).directory.name == hashlib.sha256(key.encode()).hexdigest()[:32], name


def test_a_folder_gives_its_corpus_and_says_what_it_left(tmp_path: Path) -> None:
    files = {
        "part-0.jsonl": LINES,
        "part-1.jsonl.gz": gzip.compress(LINES),
        "part-2.parquet": PARQUET,
        "part-3.jsonl": b"",
        "part-4.jsonl.gz": gzip.compress(b"\n"),
        "README.md": b"# A corpus\n",
        "_SUCCESS": b"",
        "_metadata": PARQUET[:4] + PARQUET,
        "manifest.json": json.dumps({"files": ["a"]}, indent=1).encode(),
        "md5sums.txt": b"9e107d9d372bb6826bd81d3542a419d6  part-0.jsonl\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    choice = choose(look_at(sorted(tmp_path.iterdir()), 2**20))
    assert [look.path.name for look in choice.taken] == ["part-0.jsonl", "part-1.jsonl.gz", "part-2.parquet"]
    reasons = {look.path.name: reason for look, reason in choice.left_out}
    assert set(reasons) == set(files) - {look.path.name for look in choice.taken}
    assert reasons["README.md"] == "is plain text among records; name it to take it"
    assert "checksums" in reasons["md5sums.txt"]
    assert "begins with _" in reasons["_metadata"]
    assert {reasons[name] for name in ("part-3.jsonl", "part-4.jsonl.gz", "_SUCCESS")} == {"empty"}


def test_a_folder_of_plain_text_keeps_its_readme(tmp_path: Path) -> None:
    for name in ("README.md", "a.md", "b.md"):
        (tmp_path / name).write_text(f"# {name}\n\nText.\n")
    (tmp_path / "index.jsonl").write_text('{"file": "a.md"}\n')
    choice = choose(look_at(sorted(tmp_path.iterdir()), 2**20))
    assert [look.path.name for look in choice.taken] == ["README.md", "a.md", "b.md"]
    named = choose(look_at([tmp_path / "a.md", tmp_path / "README.md"], 10), {tmp_path / "README.md"})
    assert len(named.taken) == 2


def test_a_folder_mostly_of_what_is_refused_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_bytes("Some text. ".encode("utf-16") * 20)
    (tmp_path / "README.txt").write_text("Read me.")
    with pytest.raises(CorpusError, match=r"0\.txt: is UTF-16"):
        choose(look_at(sorted(tmp_path.iterdir()), 2**20))


def test_a_format_is_told_from_a_stream_that_is_then_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for compress in COMPRESSIONS.values():
        path.write_bytes(compress(LINES))
        digests: dict = {}
        with opened(path, digests) as file:
            assert format_of(file, BY_CONTENT).name == "JSON lines"
            assert file.content.read() == LINES
            file.read_to_end()
        assert digests[path].digest() == hashlib.sha256(path.read_bytes()).digest()


def test_of_very_many_files_some_are_opened_and_every_one_is_counted_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_models.text.corpus.MOST_OPENED", 10)
    paths = [tmp_path / f"{number:03d}.jsonl" for number in range(100)]
    for path in paths:
        path.write_bytes(LINES)
    (tmp_path / "050.jsonl").write_bytes(b"")
    (tmp_path / "051.jsonl").write_bytes(gzip.compress(LINES))
    (tmp_path / "README.md").write_text("Read me.")
    opened_paths: list[Path] = []

    def noted(path: Path, digests: Digests | None = None) -> object:
        opened_paths.append(path)
        return opened(path, digests)

    monkeypatch.setattr("proxy_models.text.corpus.opened", noted)
    choice = choose(look_at([*paths, tmp_path / "README.md"], 2**30))
    assert 10 <= len(opened_paths) <= 14
    assert [look.path.name for look, _ in choice.left_out] == ["050.jsonl", "README.md"]
    assert len(choice.taken) == 99
    assert sum(look.size_bytes for look in choice.taken) == sum(path.stat().st_size for path in paths)
    assert not all(look.complete for look in choice.taken)
    assert [text for look in choice.taken for text in read_documents(look.path)] == TEXTS * 99
