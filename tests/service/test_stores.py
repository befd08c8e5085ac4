"""Corpora by address over HTTP: below the data roots files like others, elsewhere a refusal that names the domain."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError

from service.http.app import create_app
from service.processes.computation import Computation
from store.schema import upgrade
from store.settings import Settings
from tests.service.conftest import TOKEN


@pytest.fixture(autouse=True)
def computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks into files does so in this process, for no other has what lies in its memory."""
    monkeypatch.setattr(Computation, "__call__", lambda _, function, *given: function(*given))


@pytest.fixture
def root() -> str:
    return f"memory://{uuid4().hex}/corpora"


@pytest.fixture
def put(root: str) -> Callable[..., str]:
    """Write a corpus of so many documents into the store."""

    def write(name: str, documents: int = 400, word: str = "word") -> str:
        lines = [
            json.dumps({"text": f"{name} {index}: " + f"{word}{index} " * 40}) for index in range(documents)
        ]
        MemoryFileSystem().pipe_file(f"{root}/{name}", "\n".join(lines).encode())
        return f"{root}/{name}"

    return write


@pytest.fixture
def store_client(settings: Settings, root: str, tmp_path: Path) -> Iterator[TestClient]:
    given = settings.model_copy(
        update={"data_roots": f"/nowhere:{root}", "artifact_store": f"file://{tmp_path / 'artifacts'}"}
    )
    upgrade(given.resolved_database_url)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(create_app(given), base_url="http://127.0.0.1", headers=headers) as client:
        yield client


def posted(client: TestClient, beside: str, *files: str) -> Any:
    domains = [{"name": "web:news", "files": list(files)}, {"name": "beside", "files": [beside]}]
    return client.post("/v1/domain-sets", json={"name": f"set-{uuid4().hex[:8]}", "domains": domains})


def test_objects_are_files_of_a_domain(store_client: TestClient, put: Callable[..., str], root: str) -> None:
    put("a/1.jsonl")
    put("a/2.jsonl", word="other")
    put("a/notes.txt")
    answer = posted(store_client, put("beside.jsonl"), f"{root}/a/*.jsonl")
    assert answer.status_code == 201, answer.text
    domains = store_client.get(answer.headers["Location"]).json()["domains"]
    (files,) = [domain["files"] for domain in domains if domain["name"] == "web:news"]
    assert files == [f"{root}/a/1.jsonl", f"{root}/a/2.jsonl"]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("{other}/a.jsonl", "outside_data_roots"),
        ("{root}-private/a.jsonl", "outside_data_roots"),
        ("{root}/../secret.jsonl", "bad_path"),
        ("{root}/%2e%2e/secret.jsonl", "bad_path"),
        ("{root}/a\\..\\secret.jsonl", "bad_path"),
        ("s3://another-bucket/corpora/a.jsonl", "outside_data_roots"),
        ("s3://key:sesame@bucket/a.jsonl", "bad_path"),
        ("https://example.com/a.jsonl", "outside_data_roots"),
        ("http://169.254.169.254/latest/meta-data", "outside_data_roots"),
        ("file:///etc/passwd", "outside_data_roots"),
        ("file://{root}/a.jsonl", "bad_path"),
        ("zip://a::{root}/a.zip", "bad_path"),
        ("{parent}/*/secret.jsonl", "outside_data_roots"),
        ("{root}/**/**/a.jsonl", "bad_path"),
        ("{root}/missing.jsonl", "no_such_file"),
        ("{root}/missing*.jsonl", "no_such_file"),
        ("{root}", "no_such_file"),
    ],
)
def test_what_is_refused_names_the_domain_and_the_field(
    store_client: TestClient, put: Callable[..., str], root: str, file: str, code: str
) -> None:
    put("a.jsonl")
    parent = root.rpartition("/")[0]
    MemoryFileSystem().pipe_file(f"{parent}/private/secret.jsonl", b'{"text": "secret"}')
    given = file.format(root=root, parent=parent, other=f"memory://{uuid4().hex}/corpora")
    answer = posted(store_client, put("beside.jsonl"), given)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert (problem["code"], problem["field"]) == (code, "domains[0].files[0]")
    assert problem["detail"].startswith("Domain 'web:news': ")
    assert "sesame" not in answer.text


def test_a_store_that_does_not_answer_is_no_fault_of_the_request(
    store_client: TestClient, put: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, beside = put("a.jsonl"), put("beside.jsonl")

    def away(*_: object, **__: object) -> None:
        raise TimeoutError("the network is away")

    monkeypatch.setattr(MemoryFileSystem, "info", away)
    answer = posted(store_client, beside, place)
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unreachable")
    assert answer.headers["Retry-After"]
    assert place in answer.json()["detail"]


def test_a_changed_object_is_a_changed_domain(store_client: TestClient, put: Callable[..., str]) -> None:
    domains = [{"name": name, "files": [put(f"{name}.jsonl")]} for name in ("a", "beside")]
    request = {"name": "pool", "domains": domains}
    assert store_client.post("/v1/domain-sets", json=request).status_code == 201
    same = store_client.post("/v1/domain-sets/pool/revisions", json={"domains": request["domains"]})
    assert (same.status_code, same.json()["code"]) == (409, "revision_unchanged")
    put("a.jsonl", word="WORD")  # as long as before
    changed = store_client.post("/v1/domain-sets/pool/revisions", json={"domains": request["domains"]})
    assert changed.status_code == 201, changed.text


def test_a_task_may_lie_in_a_store(store_client: TestClient, put: Callable[..., str], root: str) -> None:
    MemoryFileSystem().pipe_file(f"{root}/task.jsonl", b'{"context": "a", "continuation": " b"}\n')
    domains = [{"name": name, "files": [put(f"{name}.jsonl")], "tokens": 100_000} for name in ("x", "y")]
    assert store_client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201
    request = {
        "domain_set": "pool",
        "target_tokens": 100_000,
        "proxy": {"size": "nano-0.1M", "tokens": 65_536},
        "tasks": [{"name": "t", "path": f"{root}/task.jsonl"}],
    }
    answer = store_client.post("/v1/optimizations", json=request)
    assert answer.status_code == 202, answer.text
    other = {**request, "tasks": [{"name": "t", "path": "memory://other/task.jsonl"}]}
    refused = store_client.post("/v1/optimizations", json=other)
    assert (refused.status_code, refused.json()["field"]) == (422, "tasks[0].path")


def test_ready_asks_the_artifact_store(settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    upgrade(settings.resolved_database_url)
    for address, status in ((f"file://{tmp_path / 'store'}", 200), (f"file://{blocked}/store", 503)):
        given = settings.model_copy(update={"artifact_store": address})
        with TestClient(create_app(given), base_url="http://127.0.0.1") as client:
            answer = client.get("/readyz")
        assert answer.status_code == status, answer.text
        line = (answer.json() if status == 200 else answer.json()["checks"])["artifact_store"]
        assert line == "ok" if status == 200 else address in line


@pytest.mark.parametrize(
    "given",
    [
        {"artifact_store": "s3://key:sesame@bucket/a"},
        {"artifact_store": "s3://bucket/../a"},
        {"data_roots": "s3://bucket/../a"},
    ],
)
def test_a_setting_that_is_no_address_is_refused_by_name_and_without_its_secret(
    given: dict[str, str],
) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**given)  # pyright: ignore[reportArgumentType]
    assert next(iter(given)) in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_settings_pass_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Settings(
        data_directory=tmp_path, data_roots="/data:s3://bucket/text", artifact_store=str(tmp_path / "store")
    )
    for name, value in mine.environment().items():
        monkeypatch.setenv(name, value)
    theirs = Settings()
    assert (theirs.roots, theirs.store) == (mine.roots, mine.store)
    assert [str(root) for root in theirs.roots] == ["/data", "s3://bucket/text", str(tmp_path / "corpora")]
