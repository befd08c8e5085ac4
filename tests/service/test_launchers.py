"""A launch names a launcher the operator configured, or the built-in trainer."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Job
from tests.service.conftest import TOKEN


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    file = tmp_path / "launchers.toml"
    file.write_text(
        '[launchers.olmo-core]\ncommand = ["/opt/train", "--mixture={mixture_file}"]\n'
        "[launchers.six]\nprocesses = 6\n"
        '[launchers.megatron]\ncommand = ["/opt/train", "{megatron_file}"]\n'
        '[launchers.csv]\ncommand = ["/opt/train", "{csv_file}"]\n'
        '[launchers.regmix]\ncommand = ["/opt/train", "{regmix_file}"]\n'
    )
    return Settings(data_directory=tmp_path / "data", token=TOKEN, launchers=file)


def test_a_launch_names_what_is_configured(
    client: TestClient, settings: Settings, domain_set: dict[str, Any]
) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    weights = {"books": 0.2, "web:news": 0.4, "web:forums": 0.4}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    request = {"mixture_id": mixture["id"], "tokens": 10_000, "launcher": "olmo-core", "name": "first"}
    for change, field in (
        ({"launcher": "/bin/sh"}, "launcher"),
        ({"size": "nano-0.1M"}, "size"),
        ({"name": "--flag"}, "name"),
        ({"launcher": "built-in"}, "size"),
        ({"engine": {"sharding": "fsdp"}}, "engine"),
        ({"launcher": "six"}, "size"),
        ({"launcher": "six", "size": "nano-0.1M", "batch_rows": 8}, "batch_rows"),
        (
            {"launcher": "six", "size": "nano-0.1M", "batch_rows": 12, "engine": {"micro_batch_rows": 3}},
            "engine.micro_batch_rows",
        ),
        ({"launcher": "six", "size": "nano-0.1M", "engine": {"sharding": "zero"}}, "engine.sharding"),
    ):
        refused = client.post("/v1/launches", json={**request, **change})
        assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
    made = client.post("/v1/launches", json=request)
    assert made.status_code == 202, made.text
    assert made.json()["settings"]["launcher"] == "olmo-core"
    assert made.json()["exit_status"] is None
    assert client.get(f"/launches/{made.json()['id']}").status_code == 200
    assert client.get("/").status_code == 200
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        kind = session.scalars(select(Job.kind).where(Job.owner == made.json()["id"])).one()
    database.close()
    assert kind == jobs.EXTERNAL_RUN


def test_what_a_launchers_format_cannot_hold_is_refused_when_the_launch_is_posted(
    client: TestClient, domain_set: dict[str, Any]
) -> None:
    client.post("/v1/domain-sets", json=domain_set)
    weights = {"books": 1e-6, "web:news": 0.5, "web:forums": 0.5 - 1e-6}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    request = {"mixture_id": mixture["id"], "tokens": 10_000}
    for launcher, said in (
        (
            "megatron",
            "As megatron: this format needs the paths of every domain; books, web:forums",
        ),
        ("regmix", "As regmix: regmix would draw nothing of books"),
    ):
        refused = client.post("/v1/launches", json={**request, "launcher": launcher})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_export"), refused.text
        assert said in refused.json()["detail"]
        assert (
            client.post("/v1/launches?dry_run=true", json={**request, "launcher": launcher}).status_code
            == 422
        )
    assert client.get("/v1/launches").json()["items"] == []
    assert client.post("/v1/launches", json={**request, "launcher": "csv"}).status_code == 202
