"""A swarm that is sampled here, trained by a program that knows nothing of us, and fitted and solved here."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

import mixwright
import service.client
from service.changes import look
from service.cli.main import main
from service.client import Client
from service.http.app import create_app
from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.swarms import given_swarms
from tests.service.conftest import TOKEN
from tests.service.test_client import LosesFirstAnswers
from tests.working import work

Document = dict[str, Any]
TOKENS = {"books": 2e9, "code": 1e9, "web": 7e9}
TRAINER = Path(__file__).with_name("toy_trainer.py")
QUESTION: Document = {
    "domain_set": "pool",
    "target_tokens": 10**10,
    "regression": "effective-power",
    "trained": "elsewhere",
    "proxy_name": "toy",
    "runs": 14,
    "tasks": [
        {"name": "code/bits_per_byte", "metric": "bpb"},
        {"name": "general/acc", "metric": "accuracy"},
    ],
}


def pool_of(client: TestClient) -> None:
    domains = [{"name": name, "tokens": tokens} for name, tokens in TOKENS.items()]
    assert client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201


@pytest.fixture
def pool(client: TestClient) -> TestClient:
    pool_of(client)
    return client


@pytest.fixture
def on_each(on_both_databases: Settings) -> Iterator[tuple[TestClient, Settings]]:
    upgrade(on_both_databases.resolved_database_url)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    app = create_app(on_both_databases)
    with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
        pool_of(client)
        yield client, on_both_databases


def asked(client: TestClient, settings: Settings, **changed: Any) -> Document:
    """An optimization whose first round is sampled."""
    response = client.post("/v1/optimizations", json={**QUESTION, **changed})
    assert response.status_code == 202, response.text
    work(settings)
    return client.get(f"/v1/optimizations/{response.json()['id']}").json()


def exported(client: TestClient, settings: Settings, swarm: str, **query: Any) -> Path:
    """The swarm's folder, below a data root."""
    response = client.get(f"/v1/swarms/{swarm}/export", params={"format": "regmix", **query})
    assert response.status_code == 200, response.text
    with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
        archive.extractall(settings.data_directory / "corpora", filter="data")
    return settings.data_directory / "corpora" / swarm


def trained(folder: Path) -> None:
    subprocess.run([sys.executable, str(TRAINER), str(folder)], check=True, timeout=60)


def test_a_swarm_goes_out_and_its_results_come_back(on_each: tuple[TestClient, Settings]) -> None:
    client, settings = on_each
    waiting = asked(client, settings)
    progress, swarm = waiting["progress"], waiting["swarm_id"]
    assert (waiting["state"], waiting["stage"]) == ("running", "train")
    assert (progress["runs"]["waiting"], progress["runs"]["total"]) == (14, 14)
    assert next(stage for stage in progress["stages"] if stage["name"] == "train")["state"] == "waiting"
    page = client.get(f"/optimizations/{waiting['id']}").text
    assert "Waiting for results from elsewhere: 0 of 14 runs have theirs" in page
    assert work(settings) == [], "nobody here trains"
    folder = exported(client, settings, swarm, target_tokens=10**6)
    runs = {run["id"] for run in client.get("/v1/runs", params={"swarm": swarm}).json()["items"]}
    assert {one.name for one in folder.iterdir()} == {*runs, "ratios.csv", "realised.json"}
    trained(folder)
    files = [f"{folder}/*/eval/*.json", f"{folder}/realised.json"]
    taken = client.post(f"/v1/swarms/{swarm}/results", json={"files": files})
    assert taken.status_code == 200, taken.text
    assert {one["state"] for one in taken.json()["taken"]} == {"succeeded"}
    again = client.post(f"/v1/swarms/{swarm}/results", json={"files": [f"{folder}/*/eval/*.json"]}).json()
    assert (again["taken"], again["unchanged"]) == ([], 14)
    drawn = client.get(f"/v1/runs/{min(runs)}").json()["realised_weights"]
    assert all(round(weight, 5) == weight for weight in drawn.values()), "as five digits have them"
    assert work(settings) == [jobs.SOLVE]
    found = client.get(f"/v1/optimizations/{waiting['id']}").json()
    assert found["state"] == "succeeded", found["failure"]
    mixture = client.get(f"/v1/mixtures/{found['mixture_id']}").json()
    assert mixture["evidence"]["runs_used"] == 14
    assert mixture["weights"]["code"] > 0.1, "code is worth more than its natural share"
    for address in (f"/optimizations/{found['id']}", f"/mixtures/{mixture['id']}/lineage"):
        assert client.get(address).status_code == 200
    assert client.get(f"/v1/runs/{min(runs)}/model").json()["code"] == "trained_elsewhere"


def test_the_same_results_by_the_library_are_the_same_mixture(pool: TestClient, settings: Settings) -> None:
    one = [{"name": "code/bits_per_byte", "metric": "lower"}]
    waiting = asked(pool, settings, tasks=one)
    folder = exported(pool, settings, waiting["swarm_id"], format="json")
    ratios, results = (folder / "ratios.csv").read_text().splitlines(), ["run,code/bits_per_byte"]
    position = ratios[0].split(",").index("code")
    for row in ratios[1:]:
        share = float(row.split(",")[position])
        results.append(f"{row.split(',')[0]},{2.9 - 1.7 * share + share**2!r}")
    (folder / "metrics.csv").write_text("\n".join(results) + "\n")
    sent = pool.post(
        f"/v1/swarms/{waiting['swarm_id']}/results", json={"files": [str(folder / "metrics.csv")]}
    )
    assert sent.json()["swarm"]["runs"]["succeeded"] == 14, sent.text
    work(settings)
    found = pool.get(f"/v1/optimizations/{waiting['id']}").json()
    ours = pool.get(f"/v1/mixtures/{found['mixture_id']}").json()["weights"]
    theirs = mixwright.fit(
        *(str(folder / name) for name in ("ratios.csv", "metrics.csv")),
        tokens=TOKENS,
        target_tokens=1e10,
        regression="effective-power",
    ).mixture
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[name] - theirs[name]) for name in ours) < 1e-9


def test_rounds_are_sampled_when_the_results_of_those_before_are_in(
    pool: TestClient, settings: Settings
) -> None:
    waiting = asked(pool, settings, method="climb", runs=21)
    rounds = waiting["settings"]["rounds"]
    assert len(rounds) > 1
    for number in range(len(rounds)):
        counts = pool.get(f"/v1/swarms/{waiting['swarm_id']}").json()["runs"]
        assert (counts["succeeded"], counts["waiting"]) == (sum(rounds[:number]), rounds[number])
        folder = exported(pool, settings, waiting["swarm_id"], waiting=True)
        trained(folder)
        body = {"files": [f"{folder}/*/eval/*.json"]}
        assert pool.post(f"/v1/swarms/{waiting['swarm_id']}/results", json=body).status_code == 200
        work(settings)
    assert pool.get(f"/v1/optimizations/{waiting['id']}").json()["state"] == "succeeded"


def test_what_is_there_can_be_enough(pool: TestClient, settings: Settings) -> None:
    waiting = asked(pool, settings)
    runs = [run["id"] for run in pool.get(f"/v1/runs?swarm={waiting['swarm_id']}").json()["items"]]
    address, finish = f"/v1/swarms/{waiting['swarm_id']}/results", f"/v1/optimizations/{waiting['id']}:finish"
    assert pool.post(finish).json()["code"] == "too_few_runs"
    assert not waiting["can_finish"]
    results = [
        {"run": run, "metrics": {"code/bits_per_byte": 2 - 0.01 * number, "general/acc": 0.3 + 0.02 * number}}
        for number, run in enumerate(runs[:10])
    ]
    pool.post(address, json={"results": [*results, {"run": runs[10], "failed": "out of memory"}]})
    half = pool.post(address, json={"results": [{"run": runs[11], "metrics": {"general/acc": 0.4}}]}).json()
    assert half["taken"][0]["state"] == "waiting", "a task is still missing"
    assert work(settings) == []
    assert pool.get(f"/v1/optimizations/{waiting['id']}").json()["can_finish"]
    with closing(Database(settings.resolved_database_url)) as database, database.read() as session:
        assert look(session, ()).seen[waiting["id"]].can_finish
    finished = pool.post(finish).json()
    assert not finished["can_finish"]
    assert finished["progress"]["runs"] | {"total": 14} == finished["progress"]["runs"]
    assert (finished["progress"]["runs"]["succeeded"], finished["progress"]["runs"]["failed"]) == (11, 3)
    assert work(settings) == [jobs.SOLVE]
    found = pool.get(f"/v1/optimizations/{waiting['id']}").json()
    assert found["state"] == "succeeded", found["failure"]
    late = [{"run": runs[12], "metrics": {"code/bits_per_byte": 1.5, "general/acc": 0.5}}]
    assert pool.post(address, json={"results": late}).json()["taken"][0]["state"] == "succeeded"
    lineage = pool.get(f"/v1/mixtures/{found['mixture_id']}/lineage").json()["revisions"][0]
    verdicts = {run["id"]: run["why"] for run in lineage["optimizations"][0]["runs"]}
    assert verdicts[runs[12]] == "its results came after the mixture was solved"
    assert sum(run["counted"] for run in lineage["optimizations"][0]["runs"]) == 11
    reasons = {lost["reason"].split(":")[0] for lost in found["lost_runs"]}
    assert reasons == {"failed_elsewhere", "no_results"}


def test_a_cancelled_swarm_waits_again(pool: TestClient, settings: Settings) -> None:
    waiting = asked(pool, settings)
    cancelled = pool.post(f"/v1/optimizations/{waiting['id']}:cancel").json()
    assert (cancelled["state"], cancelled["progress"]["runs"]["cancelled"]) == ("cancelled", 14)
    again = pool.post(f"/v1/optimizations/{waiting['id']}:retry").json()
    assert again["progress"]["runs"]["waiting"] == 14
    assert work(settings) == []


REFUSALS = {
    "a proxy": ({"proxy": {"tokens": 65_536}}, "proxy"),
    "swarms that are alike": ({"same_proxy": True}, "same_proxy"),
    "a name of what is trained here": (
        {"trained": "here", "proxy": {"tokens": 65_536}, "tasks": []},
        "proxy_name",
    ),
    "no tasks": ({"tasks": []}, "tasks"),
    "a file": ({"tasks": [{"name": "code", "path": "/x.jsonl"}]}, "tasks[0].path"),
    "a direction nobody said": ({"tasks": [{"name": "arc/acc"}]}, "tasks[0].metric"),
    "runs of several lengths": ({"method": "admire", "regression": None}, "run_tokens"),
    "a sampler of text": ({"sampler": "entropy"}, "sampler"),
}


@pytest.mark.parametrize(("changed", "field"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_sampled_for_elsewhere_is_refused(
    pool: TestClient, changed: Document, field: str
) -> None:
    refused = pool.post("/v1/optimizations", json={**QUESTION, **changed})
    assert refused.status_code == 422, refused.text
    assert refused.json()["field"] == field, refused.text


def test_results_of_nobody_and_of_nothing_are_named(pool: TestClient, settings: Settings) -> None:
    waiting = asked(pool, settings)
    address = f"/v1/swarms/{waiting['swarm_id']}/results"
    (run, *_) = [one["id"] for one in pool.get(f"/v1/runs?swarm={waiting['swarm_id']}").json()["items"]]

    def refused(metrics: Document, name: str = run) -> Document:
        return pool.post(address, json={"results": [{"run": name, "metrics": metrics}]}).json()

    assert refused({"code/bits_per_byte": 1.0}, "nobody")["code"] == "unknown_run"
    assert refused({"other": 1.0})["names"] == [run, "other"]
    assert "divide percent by 100" in refused({"general/acc": 41.0})["detail"]
    folder = settings.data_directory / "corpora" / "stray"
    folder.mkdir()
    (folder / "results_1.json").write_text(json.dumps({"results": {"code": {"bits_per_byte,none": 1.0}}}))
    stray = pool.post(address, json={"files": [str(folder / "results_1.json")]}).json()
    assert (stray["code"], stray["field"]) == ("invalid_results", "files[0]")


def test_the_commands_take_a_swarm_out_and_its_results_in(
    pool: TestClient, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(url: str, token: str, **_: Any) -> Client:
        return Client(url, token, transport=LosesFirstAnswers(pool))

    monkeypatch.setattr(service.client, "Client", connect)
    monkeypatch.setenv("MIXWRIGHT_TOKEN", TOKEN)
    swarm = asked(pool, settings)["swarm_id"]

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["swarm", *arguments, "--data", str(settings.data_directory)])
        assert result.exit_code == 0, result.output
        return result.output

    export = ("export", swarm, "--format", "regmix", "--target-tokens", "1e6", "--to", str(tmp_path / "out"))
    assert "no domain read more than 0.00" in run(*export)
    capped = ["swarm", *export[:5], "1e11", "--cap", "0.5", "--to", str(tmp_path / "capped")]
    result = CliRunner().invoke(main, [*capped, "--data", str(settings.data_directory)])
    assert (result.exit_code, "over its cap of 0.5" in result.output) == (1, True), result.output
    trained(tmp_path / "out")
    files = sorted(map(str, (tmp_path / "out").glob("*/eval/*.json")))
    assert run("results", swarm, *files[:5]) == "Results of 5 runs sent; 5 of 14 have theirs in.\n"
    assert (
        run("results", swarm, str(tmp_path / "out")) == "Results of 14 runs sent; 14 of 14 have theirs in.\n"
    )
    for one in pool.get("/v1/runs", params={"swarm": swarm}).json()["items"]:
        view = pool.get(f"/v1/runs/{one['id']}").json()
        # What the format's five digits make of the weights is what the run counts as.
        assert view["realised_weights"] == pytest.approx(view["weights"], abs=1e-5)
        assert all(round(weight, 5) == weight for weight in view["realised_weights"].values())


def test_a_run_counts_as_what_its_trainer_drew(pool: TestClient, settings: Settings) -> None:
    swarm = asked(pool, settings)["swarm_id"]
    run = pool.get("/v1/runs", params={"swarm": swarm}).json()["items"][0]["id"]
    address, drawn = f"/v1/swarms/{swarm}/results", {"web": 82, "code": 18}
    result: Document = {
        "run": run,
        "metrics": {"code/bits_per_byte": 1.0, "general/acc": 0.5},
        "realised_tokens": drawn,
    }
    for wrong, code in (({"x": 1}, "unknown_domain"), ({"web": 0}, "no_tokens")):
        refused = pool.post(address, json={"results": [{**result, "realised_tokens": wrong}]})
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert pool.post(address, json={"results": [result]}).status_code == 200
    assert pool.post(address, json={"results": [result]}).json()["unchanged"] == 1
    assert pool.get(f"/v1/runs/{run}").json()["realised_weights"] == {"books": 0, "code": 0.18, "web": 0.82}
    other = {**result, "realised_tokens": {"web": 1}}
    assert pool.post(address, json={"results": [other]}).json()["code"] == "conflicting_results"
    assert pool.post(address, json={"results": [other], "replace": True}).status_code == 200
    database = Database(settings.resolved_database_url)
    with database.read() as session:
        (given,) = given_swarms(session, [swarm])
        (evidence,) = given.evidence(["code/bits_per_byte"], None)
    database.close()
    assert evidence.mixture == {"books": 0, "code": 0, "web": 1}


def test_runs_trained_elsewhere_are_reused_when_the_domains_change(
    pool: TestClient, settings: Settings
) -> None:
    first = asked(pool, settings)
    folder = exported(pool, settings, first["swarm_id"])
    trained(folder)
    body = {"files": [f"{folder}/*/eval/*.json"]}
    assert pool.post(f"/v1/swarms/{first['swarm_id']}/results", json=body).status_code == 200
    work(settings)
    patch = {"add": [{"name": "maths", "tokens": 5e8}]}
    assert pool.post("/v1/domain-sets/pool/revisions", json={"patch": patch}).status_code == 201
    question = {name: value for name, value in QUESTION.items() if name != "runs"}
    reuse = {"kind": "none", "runs": True}
    plan = pool.post("/v1/optimizations?dry_run=true", json={**question, "reuse": reuse}).json()["plan"]
    assert (len(plan["reused"]), plan["set_aside"]) == (14, {})
    other = {**question, "reuse": reuse, "proxy_name": "another"}
    plan = pool.post("/v1/optimizations?dry_run=true", json=other).json()["plan"]
    assert set(plan["set_aside"].values()) == {
        "its proxy differs: toy, trained elsewhere instead of another, trained elsewhere"
    }
    second = pool.post("/v1/optimizations", json={**question, "reuse": reuse}).json()
    assert 0 < second["settings"]["runs"] < 14
    work(settings)
    second = pool.get(f"/v1/optimizations/{second['id']}").json()
    folder = exported(pool, settings, second["swarm_id"])
    trained(folder)
    body = {"files": [f"{folder}/*/eval/*.json"]}
    assert pool.post(f"/v1/swarms/{second['swarm_id']}/results", json=body).status_code == 200
    work(settings)
    found = pool.get(f"/v1/optimizations/{second['id']}").json()
    assert found["state"] == "succeeded", found["failure"]
    mixture = pool.get(f"/v1/mixtures/{found['mixture_id']}").json()
    assert mixture["evidence"]["runs_used"] == 14 + second["settings"]["runs"]
    assert pool.get(f"/optimizations/{second['id']}").status_code == 200
