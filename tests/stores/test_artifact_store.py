"""What one machine has published another one fetches, whole and unchanged, or is told what is wrong with what."""

import re
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_models.errors import (
    BadAddress,
    DataMissing,
    ObjectDamaged,
    ObjectMissing,
    StoreDenied,
    StoreMisconfigured,
    StoreUnreachable,
)
from proxy_models.stores import file_system as file_system_module
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.current import one_file_each, using_store
from proxy_models.stores.file_system import file_system, patiently, waiting
from proxy_models.stores.local_copies import MANIFEST, Manifest
from tests.s3 import S3Server
from tests.stores.conftest import objects_in, put, write_folder

FILES = {"tokens.bin": bytes(range(256)) * 5000, "meta.json": b"{}", "empty": b""}
Machines = tuple[ArtifactStore, ArtifactStore]


def content_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_folder_and_a_file_come_out_as_they_went_in(machines: Machines) -> None:
    here, there = machines
    folder = write_folder(here.directory / "shards" / "k1", FILES)
    file = write_folder(here.directory / "tokenizers", {"t.json": b"[1, 2]"}) / "t.json"
    here.publish(folder)
    here.publish(file)
    assert there.require(there.directory / "shards" / "k1") == there.directory / "shards" / "k1"
    assert content_of(there.directory / "shards" / "k1") == FILES
    assert there.path_of(here.address_of(file)) == there.directory / "tokenizers" / "t.json"
    assert there.require(there.path_of(here.address_of(file))).read_bytes() == b"[1, 2]"
    assert there.names_in(there.directory / "shards") == ["k1"]


def test_what_is_half_uploaded_is_not_there(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = machines
    folder = write_folder(here.directory / "runs" / "r" / "model", FILES)
    # The upload stops before the manifest, as when the machine is switched off there.
    monkeypatch.setattr(Manifest, "to_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        here.publish(folder)
    monkeypatch.undo()
    assert len(objects_in(here)) == len(FILES), "the files are there"
    other = there.directory / "runs" / "r" / "model"
    assert not there.fetch(other)
    assert not other.exists()
    assert there.names_in(other.parent) == []
    with pytest.raises(
        DataMissing, match=re.escape(f"{here.address}/runs/r/model: is not in the artifact store")
    ):
        there.require(other)
    here.publish(folder)
    assert there.fetch(other)
    assert content_of(other) == FILES


@pytest.mark.parametrize("damage", [b"\1" + FILES["tokens.bin"][1:], FILES["tokens.bin"][:-1], b""])
def test_a_changed_object_is_refused_by_name_and_leaves_nothing_behind(
    machines: Machines, damage: bytes
) -> None:
    here, there = machines
    here.publish(write_folder(here.directory / "shards" / "k", FILES))
    (name,) = [name for name in objects_in(here) if name.endswith("tokens.bin")]
    put(f"{here.address}/{name}", damage)
    with pytest.raises(ObjectDamaged, match=re.escape(f"{here.address}/{name}: has ")):
        there.fetch(there.directory / "shards" / "k")
    assert not (there.directory / "shards" / "k").exists()
    assert not list((there.directory / "shards").glob(".*.fetched"))
    put(f"{here.address}/{name}", FILES["tokens.bin"])
    assert there.fetch(there.directory / "shards" / "k")


def test_an_object_that_is_gone_is_named(machines: Machines) -> None:
    here, there = machines
    here.publish(write_folder(here.directory / "shards" / "k", FILES))
    (name,) = [name for name in objects_in(here) if name.endswith("meta.json")]
    file_system(here.address).rm_file(f"{here.address}/{name}")
    with pytest.raises(ObjectMissing, match=re.escape(f"{here.address}/{name}: there is no such object")):
        there.fetch(there.directory / "shards" / "k")


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"format": 1, "is_file": false, "version": "0", "files": {}}', b"[]"]
)
def test_a_broken_manifest_is_no_manifest(machines: Machines, text: bytes) -> None:
    here, there = machines
    put(f"{here.address}/shards/k/{MANIFEST}", text)
    assert not there.fetch(there.directory / "shards" / "k")


def test_a_manifest_cannot_name_a_file_outside_its_folder() -> None:
    good = Manifest.of(Path(__file__))
    (entry,) = good.files.values()
    for name in ("../evil", "/etc/evil", "a/../../evil", ""):
        hostile = Manifest({name: entry}, False).to_json()
        with pytest.raises(ObjectDamaged):
            Manifest.read("somewhere", hostile)


def test_two_writers_of_one_artifact_never_mix_their_files(machines: Machines) -> None:
    """Each file of what is fetched is of one writer, whoever's manifest came last."""
    here, there = machines
    mine = {"model": b"a" * 1000, "config": b"a"}
    theirs = {"model": b"b" * 1000, "config": b"b"}
    write_folder(here.directory / "runs" / "r" / "model", mine)
    write_folder(there.directory / "runs" / "r" / "model", theirs)
    writers = [
        threading.Thread(target=one.publish, args=(one.directory / "runs" / "r" / "model",))
        for one in machines
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    third = ArtifactStore(here.address, here.directory.parent / "c")
    assert third.fetch(third.directory / "runs" / "r" / "model")
    assert content_of(third.directory / "runs" / "r" / "model") in (mine, theirs)


def test_what_was_published_is_not_sent_or_fetched_again(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machines
    folder = write_folder(here.directory / "shards" / "k", FILES)
    here.publish(folder)
    there.fetch(there.directory / "shards" / "k")
    fs = type(file_system(here.address))
    for name in ("put_file", "get_file"):
        monkeypatch.setattr(fs, name, lambda *_, **__: pytest.fail("nothing had to be moved"))
    here.publish(folder)
    here.publish_once(folder)
    ArtifactStore(there.address, there.directory).require(there.directory / "shards" / "k")


def test_removed_is_gone_for_others_and_stays_here(machines: Machines) -> None:
    here, there = machines
    folder = write_folder(here.directory / "runs" / "r" / "checkpoints" / "step-1", FILES)
    here.publish(folder)
    here.remove(folder)
    assert objects_in(here) == {}
    assert content_of(folder) == FILES
    assert not there.fetch(there.directory / "runs" / "r" / "checkpoints" / "step-1")
    here.remove(folder)  # twice does no harm


def test_copies_go_when_space_is_wanted_the_longest_unused_first(machines: Machines) -> None:
    here, _ = machines
    for name in ("k1", "k2", "k3"):
        here.publish(write_folder(here.directory / "shards" / name, {"tokens.bin": name.encode() * 500}))
    small = ArtifactStore(here.address, here.directory.parent / "c", limit_bytes=2500)
    shards = small.directory / "shards"
    unpublished = write_folder(shards / "own", {"tokens.bin": bytes(5000)})
    held = small.obtain(shards / "k1")
    other = small.obtain(shards / "k2")
    assert held is not None
    assert other is not None
    other.close()
    assert {path.name for path in shards.iterdir()} == {"own", "k1", "k2"}
    small.require(shards / "k3")
    assert {path.name for path in shards.iterdir()} == {"own", "k1", "k3"}, "k1 is older, and in use"
    assert unpublished.exists(), "what is nowhere else is kept"
    small.close()
    held.close()
    assert small.require(shards / "k2").exists(), "and fetched again when it is wanted"
    assert {path.name for path in shards.iterdir()} == {"own", "k2", "k3"}


@given(address=st.text(max_size=60))
def test_an_address_of_another_store_leads_nowhere(address: str) -> None:
    store = ArtifactStore("s3://bucket/artifacts", Path("/data/artifacts"))
    for text in (address, f"s3://bucket/{address}", f"s3://bucket/artifacts/{address}"):
        try:
            path = store.path_of(text)
        except BadAddress:
            continue
        assert path.is_relative_to("/data/artifacts")
        assert ".." not in path.parts


def test_a_probe_leaves_nothing(machines: Machines) -> None:
    here, _ = machines
    here.probe()
    assert objects_in(here) == {}


def test_a_bucket_that_is_not_there_is_named(s3: str, tmp_path: Path) -> None:
    store = ArtifactStore("s3://no-such-bucket-anywhere/a", tmp_path / "a")
    folder = write_folder(store.directory / "shards" / "k", FILES)
    with pytest.raises(ObjectMissing, match="s3://no-such-bucket-anywhere/a/shards/k"):
        store.publish(folder)


def test_a_refusal_is_told_as_one_and_not_tried_again(s3: str, s3_session: S3Server, tmp_path: Path) -> None:
    store = ArtifactStore(f"{s3}/a", tmp_path / "a")
    folder = write_folder(store.directory / "shards" / "k", FILES)
    with s3_session.refusing(), waiting(600), pytest.raises(StoreDenied, match=f"{s3}/a/shards/k") as refused:
        patiently(lambda: store.publish(folder))
    assert not refused.value.retryable
    store.publish(folder)


def test_a_store_that_does_not_answer_can_be_asked_again(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = ArtifactStore(f"{s3}/a", tmp_path / "a")
    folder = write_folder(store.directory / "shards" / "k", FILES)
    with monkeypatch.context() as away:
        away.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        type(file_system(s3)).clear_instance_cache()
        with pytest.raises(StoreUnreachable, match=f"{s3}/a/shards/k.*does not answer") as gone:
            store.publish(folder)
        assert gone.value.retryable
    type(file_system(s3)).clear_instance_cache()
    store.publish(folder)


def test_a_store_that_comes_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system_module, "AGAIN_SECONDS", 0.0)
    answers = [StoreUnreachable("s3://b/k", "away"), StoreUnreachable("s3://b/k", "away"), None]

    def ask() -> str:
        if (error := answers.pop(0)) is not None:
            raise error
        return "there"

    with waiting(600):
        assert patiently(ask) == "there"
    answers = [StoreUnreachable("s3://b/k", "away"), None]
    monkeypatch.setattr(file_system_module, "AGAIN_SECONDS", 2.0)
    with pytest.raises(StoreUnreachable):
        patiently(ask)  # a request does not wait


def test_a_store_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def absent(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(StoreMisconfigured, match=re.escape("install mixwright[s3]")):
        file_system("s3://bucket")
    monkeypatch.undo()
    with pytest.raises(StoreMisconfigured, match="nonesuch:// cannot be used"):
        file_system("nonesuch://bucket")


def test_one_file_of_each_artifact_is_fetched_without_the_rest(machines: Machines, tmp_path: Path) -> None:
    here, there = machines
    for key, files in (("k1", FILES), ("k2", {"meta.json": b"{}"})):
        here.publish(write_folder(here.directory / "shards" / key, files))
    local = write_folder(tmp_path / "local", {"tokens.bin": b"mine"})
    references = {key: f"{here.address}/shards/{key}" for key in ("k1", "k2", "none")}
    there.directory.mkdir(exist_ok=True)
    with (
        using_store(there.to_dict()),
        one_file_each({**references, "local": str(local)}, "tokens.bin") as paths,
    ):
        content = {name: path.read_bytes() for name, path in paths.items()}
        assert content == {"k1": FILES["tokens.bin"], "local": b"mine"}
        assert [file.name for file in paths["k1"].parent.iterdir()] == ["tokens.bin"]
    assert not (there.directory / "shards").exists()
    assert not list(there.directory.iterdir())
