"""Token files over HTTP, and written by the job as a worker does it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import select

from proxy_models.text.token_shard import TokenShard
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import DomainRow, Job
from tests.proxy_models.test_token_writing import shard, split
from workers.jobs import token_files

WEIGHTS = {"books": 0.25, "web": 0.75}


@pytest.fixture
def database(client: TestClient, settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def mixture(
    client: TestClient, database: Database, write_corpus: Callable[..., str], tmp_path: Path
) -> dict[str, Any]:
    """A mixture over two domains with shards, by id, and their shards by name."""
    domains = [{"name": name, "files": [write_corpus(name)]} for name in WEIGHTS]
    assert client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201
    shards = {name: shard(tmp_path / "shards" / name)[0] for name in WEIGHTS}
    with database.write() as session:
        for row in session.scalars(select(DomainRow)):
            row.counted_tokens = shards[row.name].meta.tokens
            row.shard_directory = str(shards[row.name].directory)
        for job in session.scalars(select(Job)):
            job.state = jobs.SUCCEEDED
    body = {"domain_set": "pool", "name": "by-hand", "weights": WEIGHTS}
    return {"id": client.post("/v1/mixtures", json=body).json()["id"], "shards": shards}


def work(database: Database, settings: Settings) -> list[dict[str, Any]]:
    """Do the queued jobs of the kind; what they reported."""
    said: list[dict[str, Any]] = []
    with database.write() as session:
        for job in session.scalars(select(Job).where(Job.kind == jobs.TOKEN_FILES, Job.state == jobs.QUEUED)):
            result = token_files.execute(token_files.describe(session, job, settings), said.append)
            token_files.store(session, job, result)
            job.state = jobs.SUCCEEDED
    return said


def test_files_are_written_once_for_all_mixtures_of_a_revision_and_exports_name_them(
    client: TestClient, database: Database, settings: Settings, mixture: dict[str, Any]
) -> None:
    address = f"/v1/mixtures/{mixture['id']}/token-files"
    assert client.get(address, params={"format": "olmo-core"}).status_code == 404
    asked = client.post(address, json={"format": "olmo-core"})
    assert (asked.status_code, asked.json()["state"]) == (202, "queued")
    shards: dict[str, TokenShard] = mixture["shards"]
    total = sum(one.meta.tokens for one in shards.values())
    assert work(database, settings)[-1] == {"done": total, "total": total, "unit": "tokens"}
    body = {"domain_set": "pool", "name": "another", "weights": {"books": 0.5, "web": 0.5}}
    other = client.post("/v1/mixtures", json=body).json()["id"]
    again = client.post(f"/v1/mixtures/{other}/token-files", json={"format": "olmo-core"}).json()
    assert again["state"] == "succeeded", "nothing is written again"
    for name, file in again["files"].items():
        written = np.fromfile(file["path"], shards[name].meta.dtype)
        assert sorted(split(written)) == sorted(split(np.asarray(shards[name].tokens)))
    run = {"format": "olmo-core", "target_tokens": 1024, "sequence_length": 64, "batch_rows": 4}
    exported = client.get(f"/v1/mixtures/{other}/export", params=run).json()
    for file in again["files"].values():
        assert file["path"] in exported["files"]["sources.yaml"]


def test_axolotl_s_files_hold_what_a_run_of_the_mixture_reads(
    client: TestClient, database: Database, settings: Settings, mixture: dict[str, Any]
) -> None:
    address = f"/v1/mixtures/{mixture['id']}/token-files"
    assert client.post(address, json={"format": "axolotl"}).json()["code"] == "missing_target"
    run = {"format": "axolotl", "target_tokens": 1024, "sequence_length": 16, "batch_rows": 4}
    assert client.post(address, json=run).status_code == 202
    assert work(database, settings)[-1]["done"] == 1024
    again = client.get(address, params=run).json()
    exported = client.get(f"/v1/mixtures/{mixture['id']}/export", params=run).json()
    told = yaml.safe_load(exported["files"]["axolotl.yaml"])
    assert [each["path"] for each in told["datasets"]] == [file["path"] for file in again["files"].values()]
    drawn = {row["name"]: row["tokens"] for row in exported["realised"]["domains"]}
    assert drawn == {name: file["tokens"] for name, file in again["files"].items()}
    assert drawn == {"books": 256, "web": 768}
    longer = {**run, "target_tokens": 2048}
    assert client.get(address, params=longer).status_code == 404, "other files"


def test_files_lie_in_the_artifact_store_where_there_is_one(
    client: TestClient, database: Database, settings: Settings, mixture: dict[str, Any], tmp_path: Path
) -> None:
    kept = settings.model_copy(update={"artifact_store": f"file://{tmp_path / 'store'}"})
    address = f"/v1/mixtures/{mixture['id']}/token-files"
    for run in ({"format": "olmo-core"}, {"format": "streaming", "sequence_length": 16}):
        client.post(address, json=run)
        work(database, kept)
        files = client.get(address, params=run).json()["files"]
        for file in files.values():
            published = Path(file["address"])
            assert published.is_relative_to(tmp_path / "store")
            local = Path(file["path"])
            name = "index.json" if local.is_dir() else ""
            assert (published / name).read_bytes() == (local / name).read_bytes()
        asked = {"target_tokens": 1024, "batch_rows": 4, "sequence_length": 16, **run}
        exported = client.get(f"/v1/mixtures/{mixture['id']}/export", params=asked).json()
        assert all(file["address"] in "".join(exported["files"].values()) for file in files.values())


def test_domains_without_text_have_no_tokens_to_write(client: TestClient) -> None:
    domains = [{"name": name, "tokens": 10**6} for name in WEIGHTS]
    client.post("/v1/domain-sets", json={"name": "declared", "domains": domains})
    body = {"domain_set": "declared", "name": "mine", "weights": WEIGHTS}
    mixture = client.post("/v1/mixtures", json=body).json()["id"]
    refused = client.post(f"/v1/mixtures/{mixture}/token-files", json={"format": "megatron"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_text")
    assert client.post(f"/v1/mixtures/{mixture}/token-files", json={"format": "mds"}).status_code == 422
