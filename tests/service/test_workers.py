"""Workers as the API and the dashboard show them, and being told what to do."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from store.engine import Database
from store.jobs import PROXY_RUN, RUNNING, new_job
from store.settings import Settings
from store.tables import WorkerRow, database_now

NAMES = ("gpu-host/cuda:0", "gpu-host/cpu-0")


@pytest.fixture
def workers(client: TestClient, settings: Settings) -> dict[str, Any]:
    """Two slots, one of which trains a wave of two runs."""
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        for name in NAMES:
            host, _, slot = name.partition("/")
            device = slot if slot.startswith("cuda") else "cpu"
            session.add(
                WorkerRow(name=name, host=host, device=device, process=1, versions={"torch": "2.13.0"})
            )
        for number in range(2):
            job = new_job(PROXY_RUN, f"run_{number}", "opt", number)
            job.state, job.worker = RUNNING, f"{NAMES[0]}:4711"
            session.add(job)
    yield {"client": client, "database": database}
    database.close()


def listed(client: TestClient) -> dict[str, dict[str, Any]]:
    answer = client.get("/v1/workers")
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["items"]}


def test_a_worker_is_shown_with_what_it_holds(workers: dict[str, Any]) -> None:
    found = listed(workers["client"])
    assert {name: (one["state"], one["jobs"]) for name, one in found.items()} == {
        NAMES[0]: ("busy", 2),
        NAMES[1]: ("idle", 0),
    }
    one = workers["client"].get(f"/v1/workers/{found[NAMES[0]]['id']}").json()
    assert (one["device"], one["versions"]) == ("cuda:0", {"torch": "2.13.0"})


def test_a_worker_is_told_to_drain_to_pause_and_to_go_on(workers: dict[str, Any]) -> None:
    client, database = workers["client"], workers["database"]
    worker_id = listed(client)[NAMES[0]]["id"]

    def stored() -> WorkerRow:
        with database.read() as session:
            return session.get_one(WorkerRow, worker_id)

    assert client.post(f"/v1/workers/{worker_id}:drain").json()["state"] == "draining"
    assert stored().state == "draining"
    paused = client.post(f"/v1/workers/{worker_id}:pause", json={"reason": "fan is broken"})
    assert (paused.status_code, paused.json()["state"], paused.json()["reason"]) == (
        202,
        "paused",
        "fan is broken",
    )
    assert stored().state == "paused"
    with database.write() as session:
        session.execute(update(WorkerRow).values(failures=["job_1: worker_lost"]))
    resumed = client.post(f"/v1/workers/{worker_id}:resume").json()
    assert (resumed["state"], resumed["reason"], stored().failures) == ("busy", None, [])
    for what in ("drain", "pause", "resume"):
        missing = client.post(f"/v1/workers/wrk_nobody:{what}")
        assert (missing.status_code, missing.json()["code"]) == (404, "worker_not_found")


def test_one_that_is_not_seen_any_more_is_gone(workers: dict[str, Any]) -> None:
    client, database = workers["client"], workers["database"]
    with database.write() as session:
        session.execute(
            update(WorkerRow).where(WorkerRow.name == NAMES[0]).values(seen_at=database_now() - 300)
        )
        session.execute(update(WorkerRow).where(WorkerRow.name == NAMES[1]).values(left_at=database_now()))
    assert {one["state"] for one in listed(client).values()} == {"gone"}


def test_the_page_names_the_paused_one_and_why(workers: dict[str, Any], settings: Settings) -> None:
    client = workers["client"]
    worker_id = listed(client)[NAMES[1]]["id"]
    client.post(f"/v1/workers/{worker_id}:pause", json={"reason": "<b>three</b> jobs failed"})
    text = client.get("/workers").text
    assert NAMES[0] in text
    assert "&lt;b&gt;three&lt;/b&gt; jobs failed" in text


def test_without_workers_the_page_says_how_to_get_one(client: TestClient) -> None:
    assert "mixwright serve" in client.get("/workers").text
