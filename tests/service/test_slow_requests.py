"""However many requests wait for a file or a store, the others are answered, and no session is open meanwhile."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from proxy_models.errors import StoreUnreachable
from proxy_models.stores.artifact_store import ArtifactStore
from service.domain_sets import checks
from service.http.routes import SLOW_THREADS
from service.processes.computation import Computation
from store.engine import CONNECTIONS, Database
from store.settings import Settings
from store.tables import Run
from tests.service.conftest import TOKEN
from tests.service.dashboard.store import Store

REQUESTS = CONNECTIONS + SLOW_THREADS + 4
SECONDS = 240.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data" / "corpora").mkdir(parents=True)
    return Settings(
        data_directory=tmp_path / "data", token=TOKEN, artifact_store=f"file://{tmp_path / 'store'}"
    )


class Gate:
    """Holds who comes through until it is opened, and then lets them fail as at a store that is gone."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.waiting = threading.Semaphore(0)

    def wait(self, *_: Any) -> Any:
        self.waiting.release()
        assert self._opened.wait(SECONDS)
        raise StoreUnreachable("memory://gate", "does not answer")

    def open(self) -> None:
        self._opened.set()


@contextmanager
def in_flight(send: Callable[[], Any], gate: Gate) -> Iterator[list[Future[Any]]]:
    """So many requests at once, as many of them at the gate as may be."""
    with ThreadPoolExecutor(REQUESTS) as pool:
        futures = [pool.submit(send) for _ in range(REQUESTS)]
        try:
            for _ in range(SLOW_THREADS):
                assert gate.waiting.acquire(timeout=SECONDS)
            yield futures
        finally:
            gate.open()


def check_that_others_answer(client: TestClient) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(client.get, "/v1/runs").result(SECONDS).status_code == 200
    pool = client.app.state.database.engine.pool  # pyright: ignore[reportAttributeAccessIssue]
    assert pool.checkedout() == 0


def test_more_downloads_than_connections(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(settings.resolved_database_url)
    store = Store(database)
    store.optimization(store.domain_set(), "running", ["succeeded"])
    with database.read() as session:
        run_id = session.query(Run).one().id
    database.close()
    gate = Gate()
    monkeypatch.setattr(ArtifactStore, "obtain", gate.wait)
    with in_flight(lambda: client.get(f"/v1/runs/{run_id}/model"), gate) as downloads:
        check_that_others_answer(client)
    assert {download.result().status_code for download in downloads} == {503}


def test_more_revisions_over_a_slow_disk_than_connections(
    client: TestClient,
    domain_set: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    write_corpus: Callable[..., str],
) -> None:
    assert client.post("/v1/domain-sets", json=domain_set).status_code == 201
    patch = {"patch": {"add": [{"name": "more", "files": [write_corpus("more")]}]}}
    gate = Gate()
    monkeypatch.setattr(Computation, "__call__", lambda _, function, *given: function(*given))
    monkeypatch.setattr(checks, "look_at", gate.wait)
    with in_flight(lambda: client.post("/v1/domain-sets/pool/revisions", json=patch), gate) as revisions:
        check_that_others_answer(client)
    assert {revision.result().status_code for revision in revisions} == {503}
