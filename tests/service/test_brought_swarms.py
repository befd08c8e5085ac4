"""Runs that were trained elsewhere become a mixture of the service, the very one that ``mixwright fit`` finds."""

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

import mixwright
import service.client
from service.cli.main import main
from service.client import Client
from store.engine import Database
from store.settings import Settings
from tests.service.conftest import TOKEN
from tests.service.test_client import LosesFirstAnswers
from tests.service.test_reuse import Workers, question
from tests.working import work

Document = dict[str, Any]
TOKENS = {"books": 2e9, "code": 1e9, "web": 7e9}
DECLARED: Document = {"name": "pool", "domains": [{"name": name, "tokens": n} for name, n in TOKENS.items()]}
RUNS = 24


def simulated(runs: int = RUNS, seed: int = 3) -> list[Document]:
    """Runs whose losses are exponential in their mixtures, as in Data Mixing Laws, and an accuracy beside."""
    generator = np.random.default_rng(seed)
    names = sorted(TOKENS)
    made = []
    for number, weights in enumerate(generator.dirichlet([1.5, 1.0, 3.0], runs)):
        web, code = weights[names.index("web")], weights[names.index("code")]
        noise = generator.normal(0, 1e-3, 2)
        metrics = {
            "loss/web": 2.0 + 1.3 * np.exp(-2.1 * web) + noise[0],
            "loss/code": 1.2 + 1.7 * np.exp(-4.0 * code) + noise[1],
        }
        weights = dict(zip(names, weights.tolist(), strict=True))
        made.append(
            {"id": f"r{number}", "weights": weights, "metrics": {k: float(v) for k, v in metrics.items()}}
        )
    return made


def written(path: Path, runs: list[Document], member: str, prefix: str = "") -> str:
    names = list(runs[0][member])
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["run", *(prefix + name for name in names)])
        table.writerows([run["id"], *(repr(run[member][name]) for name in names)] for run in runs)
    return str(path)


def brought(client: TestClient, **said: Any) -> Document:
    response = client.post("/v1/swarms", json={"domain_set": "pool", **said})
    assert response.status_code == 201, response.text
    return response.json()


def solved(client: TestClient, settings: Settings, **asked: Any) -> tuple[Document, Document]:
    """The optimization and its mixture."""
    question = {"domain_set": "pool", "target_tokens": 10**10, "regression": "effective-power", **asked}
    response = client.post("/v1/optimizations", json=question)
    assert response.status_code == 202, response.text
    work(settings)
    found = client.get(f"/v1/optimizations/{response.json()['id']}").json()
    assert found["state"] == "succeeded", found["failure"]
    return found, client.get(f"/v1/mixtures/{found['mixture_id']}").json()


@pytest.fixture
def pool(client: TestClient) -> TestClient:
    assert client.post("/v1/domain-sets", json=DECLARED).status_code == 201
    return client


def same(found: Mapping[str, float], expected: Mapping[str, float]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[name] - expected[name]) < 1e-9 for name in found)


def test_the_service_and_the_library_find_one_mixture(
    pool: TestClient, settings: Settings, tmp_path: Path
) -> None:
    runs = simulated()
    tables = [written(tmp_path / "w.csv", runs, "weights"), written(tmp_path / "m.csv", runs, "metrics")]
    asked = {"tokens": TOKENS, "target_tokens": 1e10, "regression": "effective-power"}
    by_library = mixwright.fit(*tables, **asked)
    swarm = brought(pool, runs=runs)
    assert (swarm["trained"], swarm["runs"]["succeeded"], swarm["optimization_id"]) == ("brought", RUNS, None)
    found, mixture = solved(pool, settings, swarms=[swarm["id"]])
    assert same(mixture["weights"], by_library.mixture)
    ours, theirs = mixture["evidence"]["objective"], by_library.document["objective"]
    assert ours["gain"] == pytest.approx(theirs["gain"], abs=1e-9)
    assert ours["gain_interval"] == pytest.approx(theirs["gain_interval"], abs=1e-9)
    assert mixture["evidence"]["recipe"]["sampler"] == "as given"
    assert (found["progress"]["runs"]["total"], found["cost"]) == (0, None)
    assert pool.get(f"/optimizations/{found['id']}").status_code == 200
    lineage = pool.get(f"/v1/mixtures/{mixture['id']}/lineage").json()["revisions"][0]["swarms"]
    assert [(one["id"], sum(run["counted"] for run in one["runs"])) for one in lineage] == [
        (swarm["id"], RUNS)
    ]
    page = pool.get(f"/mixtures/{mixture['id']}/lineage").text
    assert f"{RUNS} of the {RUNS} runs of its lineage counted for it" in page


def test_tables_are_read_as_by_the_library(pool: TestClient, settings: Settings) -> None:
    runs = simulated()
    folder = settings.data_directory / "corpora"
    weights = written(folder / "w.csv", runs, "weights", prefix="train_")
    metrics = written(folder / "m.csv", list(reversed(runs)), "metrics")
    of_tables = brought(pool, tables={"weights": weights, "metrics": metrics})
    _, mixture = solved(pool, settings, swarms=[of_tables["id"]])
    _, again = solved(pool, settings, swarms=[brought(pool, runs=runs)["id"]])
    assert same(mixture["weights"], again["weights"])


def test_a_mixture_that_leaves_and_comes_back_is_the_same(
    pool: TestClient, settings: Settings, tmp_path: Path
) -> None:
    """Export, import, fit again."""
    runs = simulated()
    swarm = brought(pool, runs=runs)
    _, first = solved(pool, settings, swarms=[swarm["id"]])
    page = pool.get("/v1/runs", params={"swarm": swarm["id"], "limit": 200}).json()["items"]
    back = [
        {
            "id": run["name"],
            "weights": pool.get(f"/v1/runs/{run['id']}").json()["weights"],
            "metrics": run["metrics"],
        }
        for run in page
    ]
    tables = [written(tmp_path / "w.csv", back, "weights"), written(tmp_path / "m.csv", back, "metrics")]
    asked = {"tokens": TOKENS, "target_tokens": 1e10, "regression": "effective-power"}
    assert same(mixwright.fit(*tables, **asked).mixture, first["weights"])
    _, again = solved(pool, settings, swarms=[brought(pool, runs=back)["id"]])
    assert same(again["weights"], first["weights"])


def test_results_come_later_and_twice(pool: TestClient, settings: Settings) -> None:
    runs = simulated()
    bare = [{**run, "metrics": {}} for run in runs]
    swarm = brought(pool, runs=bare[:-1])
    assert (swarm["runs"]["waiting"], swarm["runs"]["succeeded"]) == (RUNS - 1, 0)
    address = f"/v1/swarms/{swarm['id']}/results"
    results = [{"run": run["id"], "metrics": run["metrics"]} for run in runs]
    results[-1]["weights"] = runs[-1]["weights"]
    first = pool.post(address, json={"results": results[:5]}).json()
    assert [one["name"] for one in first["taken"]] == ["r0", "r1", "r2", "r3", "r4"]
    assert first["swarm"]["runs"]["succeeded"] == 5
    rest = pool.post(address, json={"results": results}).json()
    assert (len(rest["taken"]), rest["unchanged"], rest["swarm"]["runs"]["succeeded"]) == (RUNS - 5, 5, RUNS)
    other = [{"run": "r0", "metrics": {"loss/web": 9.0}}]
    refused = pool.post(address, json={"results": other})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflicting_results")
    assert refused.json()["names"] == ["r0", "loss/web"]
    trained = [{"run": "r0", "metrics": {"loss/web": 9.0}, "tokens": 5}]
    assert pool.post(address, json={"results": trained}).json()["names"] == ["r0", "tokens"]
    replaced = pool.post(address, json={"results": other, "replace": True}).json()
    assert replaced["taken"][0]["metrics"] == ["loss/web"]
    pool.post(address, json={"results": results[:1], "replace": True})
    _, mixture = solved(pool, settings, swarms=[swarm["id"]])
    _, at_once = solved(pool, settings, swarms=[brought(pool, runs=runs)["id"]])
    assert same(mixture["weights"], at_once["weights"])


FAULTS = {
    "a sum that is off": ({"weights": {"books": 0.5, "code": 0.2, "web": 0.2}}, "runs", "row 0"),
    "percent": ({"weights": {"books": 50.0, "code": 20.0, "web": 30.0}}, "runs", "percent"),
    "a stranger": ({"weights": {"books": 0.5, "code": 0.2, "music": 0.3}}, "runs", "music"),
    "an accuracy": ({"metrics": {"arc/acc": 0.4}}, "higher_is_better", "arc/acc"),
}


@pytest.mark.parametrize(("change", "field", "said"), FAULTS.values(), ids=FAULTS)
def test_runs_that_cannot_be_read_are_named(
    pool: TestClient, change: Document, field: str, said: str
) -> None:
    run = {"id": "a", "weights": {"books": 0.5, "code": 0.2, "web": 0.3}, "metrics": {"loss": 2.0}, **change}
    refused = pool.post("/v1/swarms", json={"domain_set": "pool", "runs": [run]})
    assert refused.status_code == 422
    assert refused.json()["field"] == field
    assert said in refused.json()["detail"]


def test_two_directions_need_an_objective(pool: TestClient, settings: Settings) -> None:
    runs = simulated()
    for run in runs:
        run["metrics"]["arc/acc"] = 1 / (1 + run["metrics"]["loss/web"])
    swarm = brought(pool, runs=runs, higher_is_better=["*/acc"])
    question = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [swarm["id"]]}
    refused = pool.post("/v1/optimizations", json=question).json()
    assert refused["field"] == "tasks"
    _, mixture = solved(pool, settings, swarms=[swarm["id"]], tasks=[{"name": "arc/acc"}])
    (task,) = mixture["evidence"]["tasks"]
    assert (task["direction"], task["unit"]) == ("higher", "accuracy")
    refused = pool.post("/v1/optimizations", json={**question, "tasks": [{"name": "none"}]}).json()
    assert (refused["code"], refused["field"]) == ("unknown_task", "tasks[0].name")


def test_swarms_of_different_models_are_told_apart(pool: TestClient, settings: Settings) -> None:
    runs = simulated()
    small = brought(pool, runs=runs[:12], proxy_name="1M")
    large = brought(pool, runs=runs[12:], proxy_name="60M")
    question = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [small["id"], large["id"]]}
    refused = pool.post("/v1/optimizations", json=question).json()
    assert (refused["code"], refused["field"]) == ("unlike_proxies", "swarms[1]")
    _, mixture = solved(pool, settings, swarms=question["swarms"], same_proxy=True)
    _, whole = solved(pool, settings, swarms=[brought(pool, runs=runs)["id"]])
    assert same(mixture["weights"], whole["weights"])


def sized(runs: list[Document], tokens: int, slope: float = 1.0) -> list[Document]:
    """The same mixtures at another size, where what a mixture gains is so many times as much."""
    return [
        {**run, "tokens": tokens, "metrics": {name: slope * value for name, value in run["metrics"].items()}}
        for run in runs
    ]


def test_swarms_of_several_sizes_tell_what_the_target_gains(pool: TestClient, settings: Settings) -> None:
    runs = simulated()
    small = brought(pool, runs=sized(runs, 10**8), proxy_name="1M", parameters=10**6, tokenizer="ours")
    large = brought(pool, runs=sized(runs[:5], 10**9, 0.5), proxy_name="8M", parameters=8 * 10**6)
    asked = {
        "swarms": [large["id"], small["id"]],
        "target": {"parameters": 8 * 10**6},
        "target_tokens": 10**9,
    }
    _, mixture = solved(pool, settings, **asked)
    evidence = mixture["evidence"]
    assert evidence["runs_used"] == RUNS
    at_target = evidence["at_target"]
    assert (at_target["transfer"], at_target["anchors"]) == ("measured", 5)
    assert at_target["proxy"] == {"parameters": 10**6, "tokens": 10**8}
    for task in at_target["tasks"]:
        assert task["factor"] == pytest.approx(0.5, rel=0.1)
    low, high = at_target["objective"]["interval"]
    assert low < 0.5 * evidence["objective"]["gain"] < high


def test_anchors_that_tell_nothing_are_refused_by_name(pool: TestClient) -> None:
    runs = simulated()
    small = brought(pool, runs=sized(runs, 10**8), parameters=10**6, tokenizer="ours")["id"]

    def refused(anchors: list[Document], **said: Any) -> tuple[str, str]:
        anchor = brought(pool, runs=anchors, **{"parameters": 8 * 10**6, **said})["id"]
        asked = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [small, anchor]}
        problem = pool.post("/v1/optimizations", json={**asked, "target": {"parameters": 10**9}}).json()
        return problem["code"], problem["field"]

    few = sized(runs[:5], 10**9)
    assert refused(few, tokenizer="another") == ("unlike_tokenizers", "swarms[1]")
    assert refused(few, parameters=None) == ("missing_parameters", "swarms[1]")
    assert refused(runs[:5]) == ("missing_tokens", "swarms[1]")
    assert refused(few[:2]) == ("sizes_not_apart", "swarms[1]")
    without = [{**run, "metrics": {"loss/web": run["metrics"]["loss/web"]}} for run in few]
    assert refused(without) == ("unlike_tasks", "swarms[1]")


def test_runs_of_several_lengths_are_for_laws_that_see_them(pool: TestClient) -> None:
    runs = [{**run, "tokens": 10**9 * (1 + number % 2)} for number, run in enumerate(simulated())]
    swarm = brought(pool, runs=runs)
    question = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [swarm["id"]]}
    refused = pool.post("/v1/optimizations", json={**question, "regression": "effective-power"}).json()
    assert (refused["code"], refused["field"]) == ("unlike_lengths", "swarms")
    runs[3].pop("tokens")
    question["swarms"] = [brought(pool, runs=runs)["id"]]
    assert pool.post("/v1/optimizations", json=question).json()["code"] == "missing_tokens"


def test_runs_of_an_older_revision_are_carried(pool: TestClient, settings: Settings) -> None:
    """A domain that came is one they had none of: the mixture is over it too."""
    runs = simulated()
    older = brought(pool, runs=runs)
    patch = {"add": [{"name": "maths", "tokens": 5e8}]}
    assert pool.post("/v1/domain-sets/pool/revisions", json={"patch": patch}).status_code == 201
    with_maths = []
    for number, run in enumerate(simulated(8, seed=5)):
        maths = 0.05 * (number + 1)
        weights = {name: weight * (1 - maths) for name, weight in run["weights"].items()}
        with_maths.append({**run, "id": f"n{number}", "weights": {**weights, "maths": maths}})
    newer = brought(pool, runs=with_maths)
    _, mixture = solved(pool, settings, swarms=[older["id"], newer["id"]])
    assert set(mixture["weights"]) == {*TOKENS, "maths"}
    assert mixture["evidence"]["runs_used"] == RUNS + 8, "those without maths are points of its simplex"
    assert pool.get(f"/mixtures/{mixture['id']}/lineage").status_code == 200


def test_too_few_runs_are_refused_at_once(pool: TestClient) -> None:
    swarm = brought(pool, runs=simulated(3))
    question = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [swarm["id"]]}
    refused = pool.post("/v1/optimizations", json=question).json()
    assert (refused["code"], refused["field"]) == ("too_few_runs", "swarms")


def test_runs_of_the_service_and_runs_brought_to_it_go_together(
    client: TestClient, settings: Settings, write_corpus: Callable[..., str]
) -> None:
    names = ["books", "code", "news"]
    domains = [{"name": name, "files": [write_corpus(name)]} for name in names]
    made = {"name": "pool", "domains": domains, "tokenizer": {"vocabulary_size": 512}}
    assert client.post("/v1/domain-sets", json=made).status_code == 201
    work(settings)
    database = Database(settings.resolved_database_url)
    workers = Workers(database)
    trained = client.post("/v1/optimizations", json=question(runs=12)).json()["id"]
    workers.train(trained)
    database.close()
    own = client.get(f"/v1/optimizations/{trained}").json()["swarm_id"]
    more = []
    for number, weights in enumerate(np.random.default_rng(7).dirichlet(np.ones(3), 6).tolist()):
        shares = dict(zip(names, weights, strict=True))
        metrics = {f"held-out/{name}": 2 - share for name, share in shares.items()}
        more.append({"id": f"x{number}", "weights": shares, "metrics": metrics})
    other = brought(client, runs=more)
    both = {"swarms": [own, other["id"]], "target_tokens": 60_000}
    refused = client.post("/v1/optimizations", json={"domain_set": "pool", **both}).json()
    assert (refused["code"], refused["field"]) == ("unlike_proxies", "swarms[1]")
    _, mixture = solved(client, settings, **both, same_proxy=True)
    assert mixture["evidence"]["runs_used"] == 12 + 6
    assert {task["name"] for task in mixture["evidence"]["tasks"]} == {f"held-out/{name}" for name in names}
    refused = client.post(
        f"/v1/swarms/{own}/results", json={"results": [{"run": "x", "metrics": {"a": 1.0}}]}
    )
    assert refused.json()["code"] == "trained_here"


def test_what_a_table_says_was_trained_is_the_runs(pool: TestClient, settings: Settings) -> None:
    runs, folder = simulated(), settings.data_directory / "corpora"
    for number, run in enumerate(runs):
        run["metrics"] |= {"tokens": 10**9, "parameters": 10**6, "seed": number}
    weights = written(folder / "w.csv", runs, "weights")
    tables = {"weights": weights, "metrics": written(folder / "m.csv", runs, "metrics")}
    swarm = brought(pool, tables=tables)
    found = pool.get("/v1/runs", params={"swarm": swarm["id"], "limit": 3}).json()["items"]
    assert [(run["requested_tokens"], run["seed"]) for run in found] == [(10**9, 0), (10**9, 1), (10**9, 2)]
    assert set(found[0]["metrics"]) == {"loss/web", "loss/code"}
    said = {"domain_set": "pool", "tables": tables}
    refused = pool.post("/v1/swarms", json={**said, "parameters": 10**9}).json()
    assert (refused["code"], refused["field"]) == ("unlike_proxies", "parameters")
    other = brought(pool, runs=runs_of(runs), parameters=60 * 10**6)
    question = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [swarm["id"], other["id"]]}
    refused = pool.post("/v1/optimizations", json={**question, "same_proxy": True}).json()
    assert (refused["code"], refused["field"]) == ("unlike_proxies", "swarms[1]")
    assert "1,000,000 parameters" in refused["detail"]
    runs[0]["metrics"]["parameters"] = 10**9
    written(folder / "m.csv", runs, "metrics")
    refused = pool.post("/v1/swarms", json=said).json()
    assert refused["field"] == "tables"
    assert "23 of 1,000,000, 1 of 1,000,000,000" in refused["detail"]


def runs_of(runs: list[Document]) -> list[Document]:
    """With the losses alone."""
    kept = ("loss/web", "loss/code")
    return [{**run, "metrics": {name: run["metrics"][name] for name in kept}} for run in runs]


def test_swarms_of_two_tokenizers_are_told_apart(pool: TestClient) -> None:
    runs = simulated()
    swarms = [brought(pool, runs=runs[12 * k : 12 * k + 12], tokenizer=f"t{k}")["id"] for k in range(2)]
    asked = {"domain_set": "pool", "target_tokens": 10**10, "swarms": swarms, "same_proxy": True}
    refused = pool.post("/v1/optimizations", json=asked).json()
    assert (refused["code"], refused["field"]) == ("unlike_tokenizers", "swarms[1]")


def test_what_is_predicted_of_weights_follows_the_results(pool: TestClient) -> None:
    """The answer is kept, and another as soon as a result is."""
    swarm = brought(pool, runs=simulated())["id"]
    asked = {"domain_set": "pool", "target_tokens": 10**10, "regression": "effective-power"}
    made = pool.post("/v1/optimizations", json={**asked, "swarms": [swarm]}).json()
    mine = {"books": 0.2, "code": 0.3, "web": 0.5}

    def predicted() -> Document:
        body = {"optimization_id": made["id"], "mixtures": [{"weights": mine}]}
        answer = pool.post("/v1/mixtures:evaluate", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    first = predicted()
    assert predicted() == first
    other = {name: value + 0.1 for name, value in simulated()[0]["metrics"].items()}
    body = {"results": [{"run": "r0", "metrics": other}], "replace": True}
    assert pool.post(f"/v1/swarms/{swarm}/results", json=body).status_code == 200
    second = predicted()
    assert second["mixtures"][0]["objective"] != first["mixtures"][0]["objective"]
    more = {"run": "new", "weights": mine, "metrics": simulated()[1]["metrics"]}
    assert pool.post(f"/v1/swarms/{swarm}/results", json={"results": [more]}).status_code == 200
    assert (first["runs_used"], second["runs_used"], predicted()["runs_used"]) == (RUNS, RUNS, RUNS + 1)


def test_the_runs_of_an_optimization_over_swarms_are_theirs_by_name(
    pool: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(url: str, token: str, **_: Any) -> Client:
        return Client(url, token, transport=LosesFirstAnswers(pool))

    monkeypatch.setattr(service.client, "Client", connect)
    monkeypatch.setenv("MIXWRIGHT_TOKEN", TOKEN)
    swarm = brought(pool, runs=[{**run, "tokens": 10**9} for run in simulated()])["id"]
    asked = {"domain_set": "pool", "target_tokens": 10**10, "swarms": [swarm]}
    made = pool.post("/v1/optimizations", json=asked).json()["id"]
    for command, said in (
        ("runs", r"\b0 +r0 +succeeded +1,000,000,000"),
        ("status", f"runs: those of {swarm}"),
    ):
        result = CliRunner().invoke(main, [command, made, "--data", str(settings.data_directory)])
        assert result.exit_code == 0, result.output
        assert re.search(said, result.output), result.output
