"""A launch names a launcher the operator configured, or the built-in trainer."""

import json
import sys
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Job, Submission
from tests.service.conftest import TOKEN
from workers.follower import Follower, begin


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    file = tmp_path / "launchers.toml"
    file.write_text(
        f'[launchers.olmo-core]\ncommand = ["{sys.executable}", "--mixture={{mixture_file}}"]\n'
        "[launchers.six]\nprocesses = 6\n"
        "[launchers.again]\nprocesses = 2\nrestarts = 2\n"
        f'[launchers.megatron]\ncommand = ["{sys.executable}", "{{megatron_file}}"]\n'
        f'[launchers.csv]\ncommand = ["{sys.executable}", "{{csv_file}}"]\n'
        f'[launchers.regmix]\ncommand = ["{sys.executable}", "{{regmix_file}}"]\n'
        '[launchers.ours]\nkind = "webhook"\nurl = "https://ours.example/launches"\n'
        f'secret_file = "{tmp_path}/secret"\n'
        f'[launchers.gone]\ncommand = ["{tmp_path}/gone"]\n'
        '[launchers.pods]\nkind = "kubernetes"\nimage = "x"\ncommand = ["/bin/train"]\n'
        '[[launchers.pods.volumes]]\nmount = "/elsewhere"\nsource = { emptyDir = {} }\n'
        "[launchers.small]\nprocesses = 2\ndevice = 'cuda'\ndevice_memory = 4_000_000_000\n"
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


@pytest.fixture
def request_of(client: TestClient, domain_set: dict[str, Any]) -> dict[str, Any]:
    """A launch of a mixture that is stored, still without its launcher."""
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    weights = {"books": 0.2, "web:news": 0.4, "web:forums": 0.4}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    return {"mixture_id": mixture["id"], "tokens": 10_000}


def test_a_dry_run_shows_exactly_what_would_be_run(
    client: TestClient, settings: Settings, request_of: dict[str, Any]
) -> None:
    answer = client.post(
        "/v1/launches?dry_run=true", json={**request_of, "launcher": "olmo-core", "name": "first"}
    )
    assert answer.status_code == 200, answer.text
    run = answer.json()["run"]
    directory = settings.artifacts / "launches" / f"launch_{0:024x}"
    assert run["arguments"] == [sys.executable, f"--mixture={directory}/mixture.json"]
    assert json.loads(run["files"][f"{directory}/mixture.json"])["domains"]["books"]["weight"] == 0.2
    assert "PATH" in run["environment"]
    run = client.post("/v1/launches?dry_run=true", json={**request_of, "launcher": "csv"}).json()["run"]
    assert run["arguments"] == [sys.executable, f"{directory}/csv/mixture.csv"]
    assert "books" in run["files"][f"{directory}/csv/mixture.csv"]
    training = {"launcher": "six", "size": "nano-0.1M", "batch_rows": 6}
    run = client.post("/v1/launches?dry_run=true", json={**request_of, **training}).json()["run"]
    assert run["arguments"][1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=6"]
    (order,) = (json.loads(content) for content in run["files"].values())
    assert order["run"]["size"] == "nano-0.1M"
    again = {**request_of, **training, "launcher": "again"}
    run = client.post("/v1/launches?dry_run=true", json=again).json()["run"]
    assert run["arguments"][:2] == ["env", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"]
    assert run["arguments"][3:7] == [
        *("-m", "torch.distributed.run"), "--standalone", "--nproc-per-node=2",
    ]  # fmt: skip
    sent = client.post("/v1/launches?dry_run=true", json={**request_of, "launcher": "ours"}).json()["run"]
    assert (sent["request"]["method"], sent["request"]["url"]) == ("POST", "https://ours.example/launches")
    assert client.get("/v1/launches").json()["items"] == []


@pytest.mark.parametrize(
    ("launcher", "code", "word"),
    [
        ("gone", "launcher_without_program", "gone cannot be run here"),
        ("pods", "launcher_without_program", "kubectl"),
    ],
)
def test_a_launcher_without_its_program_is_refused(
    client: TestClient,
    request_of: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    launcher: str,
    code: str,
    word: str,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    refused = client.post("/v1/launches", json={**request_of, "launcher": launcher})
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, code, "launcher")
    assert word in refused.json()["detail"]


def test_a_data_directory_that_pods_do_not_see_is_refused(
    client: TestClient, request_of: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kubectl").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = client.post("/v1/launches", json={**request_of, "launcher": "pods"})
    assert (refused.status_code, refused.json()["code"]) == (422, "not_on_nodes")
    assert "see /elsewhere and not" in refused.json()["detail"]


def test_what_is_posted_back_moves_a_launch_on_to_its_end(
    client: TestClient, settings: Settings, request_of: dict[str, Any]
) -> None:
    """Between the two a follower looks, as the supervisor's does; nothing is asked of anybody."""
    launch = client.post("/v1/launches", json={**request_of, "launcher": "ours"}).json()["id"]
    with closing(Database(settings.resolved_database_url)) as database:
        follower = Follower(database, settings)
        begin(database)
        with database.write() as session:  # as it is once it was handed over
            (submission,) = session.scalars(select(Submission))
            submission.external_id, submission.state = "theirs", "queued"
        name = client.get(f"/v1/launches/{launch}").json()["submissions"][0]["name"]

        def report(**said: Any) -> dict[str, Any]:
            told = client.post(f"/v1/launches/{launch}/state", json={"submission": name, **said})
            assert told.status_code == 202, told.text
            follower.look_around(Event())
            return client.get(f"/v1/launches/{launch}").json()

        running = report(state="running", progress={"done": 10, "total": 10_000})
        assert (running["state"], running["progress"]["done"]) == ("running", 10)
        assert "Submission 1" in client.get(f"/launches/{launch}").text
        ended = report(state="succeeded")
        assert (ended["state"], ended["exit_status"]) == ("succeeded", 0)
    again = client.post(f"/v1/launches/{launch}/state", json={"submission": name, "state": "failed"})
    assert (again.status_code, again.json()["code"]) == (409, "already_ended")


def test_the_end_of_a_log_is_read_through_the_api(
    client: TestClient, settings: Settings, request_of: dict[str, Any]
) -> None:
    document = client.post("/v1/launches", json={**request_of, "launcher": "olmo-core"}).json()
    assert client.get(document["log"]).json()["code"] == "log_of_the_launch_not_found"
    directory = settings.artifacts / "launches" / document["id"]
    directory.mkdir(parents=True)
    (directory / "log").write_text("one\ntwo\nthree\n")
    assert client.get(document["log"]).text == "one\ntwo\nthree\n"
    assert client.get(document["log"], params={"bytes": 6}).text == "three\n"
    assert client.get(document["log"], params={"bytes": 2**21}).status_code == 422


def test_a_model_that_no_process_holds_is_refused_with_what_is_missing_and_what_fits(
    client: TestClient, domain_set: dict[str, Any]
) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    weights = {"books": 0.2, "web:news": 0.4, "web:forums": 0.4}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "m", "weights": weights}).json()
    request = {"mixture_id": mixture["id"], "tokens": 10_000_000, "launcher": "small", "size": "olmo-190M"}
    request |= {"batch_rows": 2, "sequence_length": 1024}
    refused = client.post("/v1/launches", json=request)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (
        422,
        "not_enough_memory",
        "engine",
    )
    problem = refused.json()
    assert problem["memory_bytes"] == 4_000_000_000
    assert problem["missing_bytes"] > 0
    assert f"{problem['missing_bytes'] / 1e9:.1f} GB more" in problem["detail"]
    fits = problem["fits"]
    engine = {"sharding": fits["sharding"], "micro_batch_rows": fits["rows"], "recompute": fits["recompute"]}
    assert fits["processes"] == 2
    assert client.post("/v1/launches", json={**request, "engine": engine}).status_code == 202
