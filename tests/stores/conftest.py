"""Stores of three kinds: a directory, memory, and a real S3 server that speaks HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.file_system import file_system
from tests.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def s3_session() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_session: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket; this process and those it starts find its server and its credentials."""
    for name, value in s3_session.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_session.new_bucket()}"


@pytest.fixture(params=["file", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of a store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/team/artifacts"
    return f"file://{tmp_path / 'store'}" if request.param == "file" else f"memory://{uuid4().hex}/artifacts"


@pytest.fixture(params=["memory", "s3"])
def corpora(request: pytest.FixtureRequest) -> str:
    """An empty folder that corpora may be read from."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/corpora"
    return f"memory://{uuid4().hex}/corpora"


@pytest.fixture
def machines(address: str, tmp_path: Path) -> tuple[ArtifactStore, ArtifactStore]:
    """Two machines of one store: nothing is shared but that."""
    return ArtifactStore(address, tmp_path / "a"), ArtifactStore(address, tmp_path / "b")


def put(address: str, content: bytes) -> str:
    """An object; answers its address."""
    file_system(address).pipe_file(address, content)
    return address


def objects_in(store: ArtifactStore) -> dict[str, bytes]:
    """Every object of a store by its name there."""
    fs = file_system(store.address)
    root = store.address.partition("://")[2].strip("/")
    if not fs.exists(store.address):
        return {}
    found = [str(path) for path in fs.find(store.address)]
    return {path.strip("/").removeprefix(f"{root}/"): fs.cat_file(path) for path in found}


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
