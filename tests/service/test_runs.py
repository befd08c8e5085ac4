from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.engine import Database
from store.settings import Settings
from store.tables import Run
from tests.service.dashboard.store import SETTINGS, TOKENS, Store, evidence


@pytest.fixture
def store(client: TestClient, settings: Settings) -> Iterator[Store]:
    database = Database(settings.resolved_database_url)
    yield Store(database)
    database.close()


def runs_of(client: TestClient, optimization_id: str) -> list[dict[str, Any]]:
    swarm = client.get(f"/v1/optimizations/{optimization_id}").json()["swarm_id"]
    return client.get("/v1/runs", params={"swarm": swarm}).json()["items"]


def test_a_run_says_its_round_and_what_it_was_asked_to_train(client: TestClient, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["succeeded", "running", "queued"])
    with store.database.write() as session:
        last = session.query(Run).filter_by(position=2).one()
        last.round, last.tokens = 1, 5_000_000_000  # more than 32 bits
    runs = runs_of(client, found)
    proxy = SETTINGS["proxy"]["tokens"]
    assert [(run["round"], run["requested_tokens"]) for run in runs] == [
        (0, proxy),
        (0, proxy),
        (1, 5_000_000_000),
    ]
    assert runs[1]["tokens"] is None, "nothing is trained to the end yet"
    assert client.get(f"/v1/runs/{runs[2]['id']}").json()["requested_tokens"] == 5_000_000_000


def test_the_run_of_a_launch_was_asked_what_the_launch_was(client: TestClient, store: Store) -> None:
    solved = store.optimization(store.domain_set(), "succeeded", proposal=evidence(TOKENS))
    launch = store.launch(solved, "natural", "queued")
    (run,) = [one for one in client.get("/v1/runs").json()["items"] if one["launch_id"] == launch]
    assert (run["round"], run["requested_tokens"]) == (0, 2_097_152)


def test_a_cancelled_optimization_has_nothing_queued(client: TestClient, store: Store) -> None:
    found = store.optimization(store.domain_set(), "running", ["succeeded", "queued"])
    assert client.post(f"/v1/optimizations/{found}:cancel").status_code == 202
    view = client.get(f"/v1/optimizations/{found}").json()
    assert (view["progress"]["runs"]["cancelled"], view["progress"]["runs"]["queued"]) == (1, 0)
    stages = {stage["name"]: stage["state"] for stage in view["progress"]["stages"]}
    assert stages == {
        "prepare": "succeeded",
        "sample": "succeeded",
        "train": "cancelled",
        "solve": "cancelled",
    }
