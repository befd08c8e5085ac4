"""Server-sent events of optimizations and launches, by a real server and the client that reads them."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from benchmarks.api import served
from service.client import ApiError, Client
from service.http import events
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Optimization
from tests.service.conftest import TOKEN


def finish(settings: Settings, optimization_id: str, state: str) -> None:
    with closing(Database(settings.resolved_database_url)) as database, database.write() as session:
        session.get_one(Optimization, optimization_id).state = state


@pytest.fixture
def made(client: TestClient, optimization: dict[str, Any]) -> str:
    return client.post("/v1/optimizations", json=optimization).json()["id"]


def test_a_stream_says_each_state_once_and_ends_with_the_last(
    client: TestClient, made: str, settings: Settings
) -> None:
    with served(settings, workers=1) as web, Client(web.url, TOKEN) as told:
        states = []
        for document in told.events(made):
            states.append(document["state"])
            if document["state"] == jobs.QUEUED:
                finish(settings, made, jobs.RUNNING)
            elif document["state"] == jobs.RUNNING:
                finish(settings, made, jobs.SUCCEEDED)
        assert states == [jobs.QUEUED, jobs.RUNNING, jobs.SUCCEEDED]
        assert told.wait(made) == told.optimization(made) == document


def test_what_waits_gets_the_document_of_the_end(client: TestClient, made: str, settings: Settings) -> None:
    finish(settings, made, jobs.FAILED)
    answer = client.get(f"/v1/optimizations/{made}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    kind, name, data, *rest = answer.text.split("\n")
    assert (kind, name[:4], data[:6], rest) == ("event: state", "id: ", "data: ", ["", ""])


def test_an_id_that_is_nothing_is_a_404_and_no_stream(client: TestClient) -> None:
    for path in ("optimizations/opt_none", "launches/launch_none"):
        answer = client.get(f"/v1/{path}/events")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_more_streams_than_a_process_looks_after_are_refused(
    client: TestClient, made: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 0)
    answer = client.get(f"/v1/optimizations/{made}/events")
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert "Retry-After" in answer.headers


class Pieces(httpx.SyncByteStream):
    """A body that breaks off after its pieces, unless it is whole."""

    def __init__(self, *pieces: str, is_whole: bool = False) -> None:
        self._pieces, self._is_whole = pieces, is_whole

    def __iter__(self) -> Iterator[bytes]:
        yield from (piece.encode() for piece in self._pieces)
        if not self._is_whole:
            raise httpx.ReadError("the service was restarted")


def test_a_stream_that_breaks_is_taken_up_behind_what_was_seen() -> None:
    known: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        known.append(request.headers.get("Last-Event-ID"))
        said = 'event: state\nid: {}\ndata: {{"state": "{}"}}\n\n'
        if len(known) == 1:
            return httpx.Response(200, stream=Pieces(said.format("a", "running"), ": still there\n\n"))
        return httpx.Response(200, stream=Pieces(said.format("b", "succeeded"), is_whole=True))

    client = Client("http://127.0.0.1", "token", transport=httpx.MockTransport(answer))
    assert [document["state"] for document in client.events("opt_1")] == ["running", "succeeded"]
    assert known == [None, "a"]


def test_only_an_optimization_or_a_launch_can_be_waited_for() -> None:
    client = Client("http://127.0.0.1", "token", transport=httpx.MockTransport(lambda _: httpx.Response(404)))
    with pytest.raises(ValueError, match="mix_1"):
        client.wait("mix_1")
    with pytest.raises(ApiError, match="404"):
        client.wait("launch_1")
