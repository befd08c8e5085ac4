"""``POST /v1/mixtures:evaluate`` over a store as workers leave it; runs whose metrics follow a known line."""

import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from service.mixtures import kept_laws
from store.engine import Database
from store.settings import Settings
from store.tables import Job, Run
from tests.service.test_reuse import NAMES, PROXY, Workers

MINE = {"books": 0.2, "code": 0.5, "news": 0.3}


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def asked(client: TestClient, database: Database, write_corpus: Callable[..., str]) -> dict[str, Any]:
    """A request about an optimization of 12 runs, and of a mixture by hand."""
    domains = [{"name": name, "files": [write_corpus(name)]} for name in NAMES]
    assert client.post("/v1/domain-sets", json={"name": "pool", "domains": domains}).status_code == 201
    workers = Workers(database)
    workers.count(1)
    body = {"domain_set": "pool", "method": "olmix", "target_tokens": 60_000, "repetition_cap": 4}
    made = client.post("/v1/optimizations", json={**body, "proxy": PROXY, "runs": 12}).json()
    workers.train(made["id"])
    return {"optimization_id": made["id"], "mixtures": [{"name": "mine", "weights": MINE}]}


def test_weights_of_ones_own_are_predicted_by_the_optimizations_runs(
    client: TestClient, asked: dict[str, Any]
) -> None:
    by_hand = client.post(
        "/v1/mixtures", json={"domain_set": "pool", "name": "by-hand", "weights": MINE}
    ).json()
    body = {**asked, "mixtures": [*asked["mixtures"], {"mixture_id": by_hand["id"]}]}
    answer = client.post("/v1/mixtures:evaluate", json=body)
    assert answer.status_code == 200, answer.text
    mine, stored = answer.json()["mixtures"]
    assert (mine["name"], stored["name"]) == ("mine", by_hand["id"])
    assert mine["objective"] == stored["objective"]
    # Every run measured 2 - weight of each domain's held-out slice, so the truth is a straight line.
    for task in mine["tasks"]:
        assert task["proposed"] == pytest.approx(2 - MINE[task["name"].removeprefix("held-out/")], abs=0.05)
    assert answer.json()["runs_used"] == 12
    assert client.get("/v1/mixtures").json()["items"][0]["id"] == by_hand["id"], "nothing was stored"


@pytest.mark.parametrize(
    ("mixture", "status", "code", "said"),
    [
        ({"weights": {"books": 1.0}}, 422, "missing_domain", "code, news"),
        ({"weights": {**MINE, "papers": 0.0}}, 422, "unknown_domain", "papers"),
        ({"weights": {**MINE, "news": 0.9}}, 422, "invalid_weights", "sum to 1.6"),
        ({"mixture_id": "mix_none"}, 404, "mixture_not_found", "mix_none"),
        ({}, 422, "invalid_request", "mixture_id"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(
    mixture: dict[str, Any], status: int, code: str, said: str, client: TestClient, asked: dict[str, Any]
) -> None:
    answer = client.post("/v1/mixtures:evaluate", json={**asked, "mixtures": [mixture]})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert said in answer.json()["detail"]


def test_a_baseline_has_no_runs_to_predict_by(client: TestClient, asked: dict[str, Any]) -> None:
    body = {"domain_set": "pool", "method": "natural", "target_tokens": 60_000}
    made = client.post("/v1/optimizations", json=body).json()
    answer = client.post("/v1/mixtures:evaluate", json={**asked, "optimization_id": made["id"]})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_runs")


def test_a_law_is_fitted_once_and_again_where_anything_it_depends_on_is_another(
    client: TestClient, asked: dict[str, Any], settings: Settings, database: Database
) -> None:
    folder = settings.data_directory / "laws"

    def said() -> list[float]:
        answer = client.post("/v1/mixtures:evaluate", json=asked)
        assert answer.status_code == 200, answer.text
        return [task["gain"] for task in answer.json()["mixtures"][0]["tasks"]]

    first = said()
    as_first = pytest.approx(first, rel=1e-9)  # to the gap, not to the bit
    (kept,) = folder.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    inode = kept.stat().st_ino
    assert said() == as_first
    assert [file.stat().st_ino for file in folder.iterdir()] == [inode], "read, not written again"
    kept.write_bytes(kept.read_bytes()[:-99])
    assert said() == as_first
    assert kept.stat().st_ino != inode, "what is damaged is fitted again"
    with database.write() as session:
        run = session.scalars(select(Run).where(Run.launch_id.is_(None))).first()
        assert run is not None
        assert run.result is not None
        final = {name: value + 0.1 for name, value in run.result["final"].items()}
        run.result = {**run.result, "final": final}
        session.scalars(select(Job).where(Job.subject == run.id)).one().finished_at = 1.0
    assert said() != as_first
    assert len(list(folder.iterdir())) == 2


def test_of_laws_the_ones_not_asked_for_longest_make_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_laws, "MOST_BYTES", 2500)
    files = [settings.data_directory / "laws" / f"{number}.law" for number in range(3)]
    law: Any = np.arange(100.0)
    for number, file in enumerate(files[:2]):
        kept_laws.keep_judge(file, law)
        assert file.stat().st_size in range(800, 1000), "there is room for two"
        os.utime(file, (number, number))
    assert np.array_equal(law, np.asarray(kept_laws.kept_judge(files[0])))
    kept_laws.keep_judge(files[2], law)
    assert [file.exists() for file in files] == [True, False, True]
    assert kept_laws.kept_judge(files[1]) is None
