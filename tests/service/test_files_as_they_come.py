"""Files as people have them: folders with notes beside the corpus, links into a store of blobs, ids of others."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from store.settings import Settings
from tests.hostile.conftest import problem

Document = dict[str, Any]


def lines(name: str, documents: int = 400) -> bytes:
    texts = (f"{name} document {number} " + "word " * 60 for number in range(documents))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.fixture
def folder(settings: Settings) -> Path:
    """A folder below the data root with shards, and with what writers leave beside them."""
    folder = settings.data_directory / "corpora" / "web"
    (folder / "2024").mkdir(parents=True)
    (folder / "part-0.json.gz").write_bytes(gzip.compress(lines("a")))
    (folder / "part[1].jsonl").write_bytes(lines("b"))
    (folder / "part1.jsonl").write_bytes(lines("c"))
    (folder / "part-9.jsonl").write_bytes(b"")
    (folder / "README.md").write_text("# Web\n\nPages.\n")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "md5sums").write_text("9e107d9d372bb6826bd81d3542a419d6  part-0.json.gz\n")
    (folder / "2024" / "part").write_bytes(lines("d"))
    return folder


def tokenizer_folder(settings: Settings) -> str:
    """A place for a tokenizer, which is only looked at when it is used."""
    folder = settings.data_directory / "corpora" / "tokenizer"
    folder.mkdir()
    return str(folder)


def planned(client: TestClient, domain_set: Document, files: list[str]) -> Document:
    domain_set["domains"][0]["files"] = files
    answer = client.post("/v1/domain-sets?dry_run=true", json=domain_set)
    assert answer.status_code == 200, answer.json()
    return answer.json()["domains"][0]


def test_a_dry_run_lists_what_is_taken_and_what_is_left_out(
    client: TestClient, domain_set: Document, folder: Path
) -> None:
    found = planned(client, domain_set, [f"{folder}/*"])
    listing = {(one["format"], one["taken"]): one for one in found["files"]}
    taken = listing[("JSON lines", True)]
    assert (taken["files"], taken["reason"]) == (3, None)
    shards = ("part-0.json.gz", "part[1].jsonl", "part1.jsonl")
    assert taken["size_bytes"] == sum((folder / name).stat().st_size for name in shards)
    assert taken["examples"] == sorted(str(folder / name) for name in shards)
    assert listing[("empty", False)]["files"] == 2
    assert listing[("plain text", False)]["reason"] == "is plain text among records; name it to take it"
    assert listing[("a list of checksums", False)]["examples"] == [str(folder / "md5sums")]
    assert found["sample"].startswith("a document 0 word")
    assert client.get("/v1/domain-sets/pool").status_code == 404, "nothing is stored"


def test_what_is_left_out_is_not_among_the_files_of_the_domain(
    client: TestClient, domain_set: Document, folder: Path
) -> None:
    domain_set["domains"][0]["files"] = [f"{folder}/"]
    made = client.post("/v1/domain-sets", json=domain_set).json()
    files = next(one["files"] for one in made["domains"] if one["name"] == domain_set["domains"][0]["name"])
    names = ("2024/part", "part-0.json.gz", "part1.jsonl", "part[1].jsonl")
    assert files == [str(folder / name) for name in names]


def test_brackets_of_a_name_are_no_pattern(client: TestClient, domain_set: Document, folder: Path) -> None:
    assert planned(client, domain_set, [f"{folder}/part[1].jsonl"])["files"][0]["examples"] == [
        str(folder / "part[1].jsonl")
    ]
    (folder / "part[1].jsonl").unlink()
    assert planned(client, domain_set, [f"{folder}/part[1].jsonl"])["files"][0]["examples"] == [
        str(folder / "part1.jsonl")
    ]


def test_a_plain_file_that_is_named_is_taken_among_records(
    client: TestClient, domain_set: Document, folder: Path
) -> None:
    found = planned(client, domain_set, [f"{folder}/part*", f"{folder}/README.md"])
    assert [one["format"] for one in found["files"] if one["taken"]] == ["JSON lines", "plain text"]


def test_links_into_a_store_of_blobs_keep_their_names(
    client: TestClient, settings: Settings, domain_set: Document
) -> None:
    """The layout of a hub's cache: a snapshot of links to files that are named after their content."""
    cache = settings.data_directory / "corpora" / "datasets--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "1a2b").mkdir(parents=True)
    for name, content in (
        ("train.jsonl.gz", gzip.compress(lines("a"))),
        ("ids.npy", (np.arange(9000) % 500).astype("uint16").tobytes()),
        ("ids.npy.json", b'{"dtype": "uint16"}'),
    ):
        (cache / "blobs" / f"blob-{name.replace('.', '')}").write_bytes(content)
        link = cache / "snapshots" / "1a2b" / name
        link.symlink_to(Path("../../blobs") / f"blob-{name.replace('.', '')}")
    found = planned(client, domain_set, [f"{cache}/snapshots/*/train*"])
    assert found["files"][0]["examples"] == [str(cache / "snapshots" / "1a2b" / "train.jsonl.gz")]
    domain_set["tokenizer"] = {"huggingface": tokenizer_folder(settings)}
    assert (
        planned(client, domain_set, [f"{cache}/snapshots/1a2b/ids.npy"])["files"][0]["format"]
        == "raw token ids"
    )


def test_ids_that_a_tokenizer_trained_here_cannot_have_made_are_refused(
    client: TestClient, settings: Settings, domain_set: Document
) -> None:
    path = settings.data_directory / "corpora" / "ids.npy"
    np.save(path, np.arange(9000, dtype=np.uint16) % 500)
    domain_set["domains"][0]["files"] = [str(path)]
    found = problem(client.post("/v1/domain-sets", json=domain_set))
    assert (found["status"], found["code"]) == (422, "corpus_error")
    assert f"{path}: holds token ids of NumPy" in found["detail"]
    assert "give the one that did as tokenizer.huggingface" in found["detail"]
    domain_set["tokenizer"] = {"huggingface": tokenizer_folder(settings)}
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201


def test_a_folder_in_which_nothing_is_text_says_so(
    client: TestClient, domain_set: Document, folder: Path
) -> None:
    domain_set["domains"][0]["files"] = [f"{folder}/_*", f"{folder}/part-9*"]
    found = problem(client.post("/v1/domain-sets", json=domain_set))
    assert "holds no text" in found["detail"]


def test_a_text_by_name_is_stored_and_part_of_what_the_files_are(
    client: TestClient, settings: Settings, domain_set: Document, write_corpus: Callable[..., str]
) -> None:
    path = settings.data_directory / "corpora" / "content.jsonl"
    path.write_bytes(lines("a").replace(b'"text"', b'"content"'))
    domain_set["domains"][0]["files"] = [str(path)]
    found = problem(client.post("/v1/domain-sets", json=domain_set))
    assert (
        "has no string 'text'; its strings are content, and reading.text_field names one" in found["detail"]
    )
    domain_set["domains"][0]["reading"] = {"text_field": "content"}
    made = client.post("/v1/domain-sets", json=domain_set)
    assert made.status_code == 201, made.json()
    name = domain_set["domains"][0]["name"]
    row = next(one for one in made.json()["domains"] if one["name"] == name)
    assert row["reading"] == {"text_field": "content"}
    others = [one for one in made.json()["domains"] if one["name"] != name]
    assert all(one["reading"] is None for one in others)
    domain_set["domains"][0]["reading"] = {"format": "text"}
    change = client.post(
        "/v1/domain-sets/pool/revisions?dry_run=true", json={"domains": domain_set["domains"]}
    )
    assert change.json()["changes"]["revised"] == [name], change.json()


def test_a_sample_needs_the_size_of_its_domain_and_a_template_its_content(
    client: TestClient, domain_set: Document
) -> None:
    tokens = domain_set["domains"][0].pop("tokens")
    domain_set["domains"][0]["reading"] = {"max_bytes": 100_000}
    found = problem(client.post("/v1/domain-sets", json=domain_set))
    assert found["status"] == 422
    assert "give its tokens" in found["detail"]
    domain_set["domains"][0]["tokens"] = tokens
    assert client.post("/v1/domain-sets?dry_run=true", json=domain_set).status_code == 200
    domain_set["domains"][0]["reading"] = {"chat": "{role}"}
    assert (
        "a template has {content} once" in problem(client.post("/v1/domain-sets", json=domain_set))["detail"]
    )
