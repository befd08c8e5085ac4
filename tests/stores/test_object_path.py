"""An address has one spelling, and nothing that a client sends is one thing to the check and another to the store."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_models.errors import BadAddress
from proxy_models.stores.object_path import ObjectPath, data_path, is_address, split_roots, store_address

HOSTILE = [
    "s3://bucket/corpora/../secrets/a.jsonl",
    "s3://bucket/corpora/./a.jsonl",
    "s3://bucket/corpora//a.jsonl",
    "s3://bucket//corpora/a.jsonl",
    "s3://bucket/corpora/%2e%2e/a.jsonl",
    "s3://bucket/corpora/%2E%2E%2Fsecrets/a.jsonl",
    "s3://bucket/corpora/..%2fa.jsonl",
    "s3://bucket/corpora/%252e%252e/a.jsonl",
    "s3://bucket/corpora/..\\secrets\\a.jsonl",
    "s3://bucket/corpora/a%5c..%5cb",
    "s3://bucket/corpora/a.jsonl?versionId=1",
    "s3://bucket/corpora/a\x00.jsonl",
    "s3://bucket/corpora/a\n.jsonl",
    "s3://key:secret@bucket/corpora/a.jsonl",
    "s3://..",
    "s3://../corpora",
    "s3://",
    "s3:///corpora/a.jsonl",
    "s3://buck*t/corpora/a.jsonl",
    "zip://a.jsonl::s3://bucket/corpora/a.zip",
    "simplecache::s3://bucket/corpora/a.jsonl",
    "s3://bucket/corpora/zip://a::file:///etc/passwd",
    "file://host/etc/passwd",
    "s3://bucket/" + "a" * 5000,
]


@pytest.mark.parametrize("address", HOSTILE)
def test_what_could_mean_something_else_is_refused(address: str) -> None:
    try:
        found = data_path(address)
    except BadAddress:
        return
    assert address.startswith("simplecache::"), f"{address} was taken for {found}"
    assert isinstance(found, Path), (
        "without a scheme of its own it is a local path, which is refused as relative"
    )
    assert not found.is_absolute()


@given(text=st.text(st.sampled_from("ab./%2eEfF5cC:\\*?@s3\x00"), max_size=30))
def test_no_accepted_address_leaves_its_folder(text: str) -> None:
    root = ObjectPath("s3", "bucket/corpora")
    try:
        path = data_path(f"s3://bucket/corpora/{text}")
    except BadAddress:
        return
    assert isinstance(path, ObjectPath)
    assert path.is_below(root)
    for spelling in (path.key, unquote(path.key), unquote(unquote(path.key))):
        assert os.path.normpath(spelling.replace("\\", "/")) == spelling, (
            "a store that decodes it finds the same"
        )
    assert data_path(str(path)) == path


def test_a_folder_is_not_the_one_whose_name_it_begins() -> None:
    root = ObjectPath("s3", "bucket/corpora")
    assert ObjectPath("s3", "bucket/corpora/a").is_below(root)
    assert not ObjectPath("s3", "bucket/corpora-private/a").is_below(root)
    assert not ObjectPath("s3", "bucket2/corpora/a").is_below(root)
    assert not ObjectPath("gs", "bucket/corpora/a").is_below(root)
    assert not ObjectPath("s3", "bucket").is_below(root)
    assert ObjectPath("s3", "bucket/a").is_below(ObjectPath("s3", "bucket"))


def test_other_spellings_of_a_scheme_are_the_same_object() -> None:
    assert data_path("S3A://bucket/a") == data_path("s3://bucket/a")
    assert data_path("gcs://bucket/a/") == data_path("gs://bucket/a")
    assert data_path("file:///data/a") == Path("/data/a") == data_path("/data/a")
    assert is_address("s3://bucket/a")
    assert not is_address("/data/s3://bucket")


def test_names_and_suffixes_are_those_of_a_path() -> None:
    path = data_path("s3://bucket/folder/text.jsonl.GZ")
    assert (path.name, path.suffix) == ("text.jsonl.GZ", ".GZ")
    assert str(path.with_suffix("")) == "s3://bucket/folder/text.jsonl"
    assert str(path.with_name("other.bin.json")) == "s3://bucket/folder/other.bin.json"
    with pytest.raises(TypeError):
        Path(path)  # pyright: ignore[reportArgumentType]


def test_roots_are_cut_at_colons_but_not_within_addresses() -> None:
    text = os.pathsep.join(["/data", "s3://bucket/corpora", "relative", "gs://other", "", "/s3"])
    assert split_roots(text) == ["/data", "s3://bucket/corpora", "relative", "gs://other", "/s3"]
    assert split_roots("s3://bucket/corpora") == ["s3://bucket/corpora"]
    assert split_roots("") == []


def test_a_store_in_a_directory_has_an_address_too(tmp_path: Path) -> None:
    assert store_address(str(tmp_path)) == store_address(f"file://{tmp_path}/") == f"file://{tmp_path}"
    assert store_address("s3://bucket/team/") == "s3://bucket/team"
