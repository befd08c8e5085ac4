"""``/v1/events``: what changes of optimizations, launches and swarms, told to everybody who listens."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import islice
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from benchmarks.api_web import served
from service import changes
from service.changes import Changes
from service.client import Client
from service.http import events
from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Optimization, database_now
from tests.service.conftest import TOKEN
from tests.service.test_brought_swarms import DECLARED, simulated
from tests.service.test_limits import users

Document = dict[str, Any]


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.resolved_database_url)
    yield database
    database.close()


@pytest.fixture
def made(client: TestClient, optimization: Document) -> str:
    return client.post("/v1/optimizations", json=optimization).json()["id"]


def say(database: Database, optimization: str, state: str) -> None:
    with database.write() as session:
        row = session.get_one(Optimization, optimization)
        row.state, row.updated_at = state, database_now()  # pyright: ignore[reportAttributeAccessIssue]


def test_whoever_listens_hears_of_everything_that_changes(
    client: TestClient, made: str, optimization: Document, settings: Settings, database: Database
) -> None:
    told: list[tuple[str, str]] = []
    weights = {"books": 0.2, "web:news": 0.4, "web:forums": 0.4}
    with served(settings, workers=1) as web, Client(web.url, TOKEN) as listener:
        for change in listener.changes():
            told.append((change["kind"], change["state"]))
            match told[-1]:
                case ("optimization", jobs.QUEUED):
                    assert change["id"] == made
                    say(database, made, jobs.RUNNING)
                case ("optimization", jobs.RUNNING):
                    mixture = client.post(
                        "/v1/mixtures",
                        json={"domain_set": optimization["domain_set"], "name": "m", "weights": weights},
                    ).json()
                    asked = {"mixture_id": mixture["id"], "size": "nano-1M", "tokens": 1_000_000}
                    launch = client.post("/v1/launches", json=asked)
                    assert launch.status_code == 202, launch.text
                case ("launch", jobs.QUEUED):
                    assert client.post(f"/v1/launches/{change['id']}:cancel").status_code == 202
                case ("launch", jobs.CANCELLED):
                    assert (
                        client.post("/v1/domain-sets", json={**DECLARED, "name": "declared"}).status_code
                        == 201
                    )
                    waiting = [{key: run[key] for key in ("id", "weights")} for run in simulated(2)]
                    runs = [*simulated(3)[2:], *waiting]
                    swarm = client.post("/v1/swarms", json={"domain_set": "declared", "runs": runs})
                    assert swarm.status_code == 201, swarm.text
                case ("swarm", jobs.WAITING):
                    assert change["runs"] | {"total": 3, "succeeded": 1, "waiting": 2} == change["runs"]
                    results = [{"run": run["id"], "metrics": run["metrics"]} for run in simulated(2)]
                    sent = client.post(f"/v1/swarms/{change['id']}/results", json={"results": results})
                    assert sent.status_code == 200, sent.text
                case ("swarm", jobs.SUCCEEDED):
                    break
    assert told == [
        ("optimization", jobs.QUEUED),
        ("optimization", jobs.RUNNING),
        ("launch", jobs.QUEUED),
        ("launch", jobs.CANCELLED),
        ("swarm", jobs.WAITING),
        ("swarm", jobs.SUCCEEDED),
    ]


def test_who_comes_back_hears_what_ended_meanwhile(
    client: TestClient, made: str, settings: Settings, database: Database
) -> None:
    with served(settings, workers=1) as web:
        address, headers = f"{web.url}/v1/events", {"Authorization": f"Bearer {TOKEN}"}
        with httpx.stream("GET", address, headers=headers) as first:
            seen = next(line for line in first.iter_lines() if line.startswith("id: "))
        with database.write() as session:  # long ago for all but whoever asks by the time of the last event
            row = session.get_one(Optimization, made)
            row.state, row.updated_at = jobs.FAILED, float(seen[4:]) + 100
            session.flush()
        headers["Last-Event-ID"] = seen[4:]
        with httpx.stream("GET", address, headers=headers) as again:
            told = (line for line in again.iter_lines() if line.startswith(("event: ", "data: ")))
            kind, data = islice(told, 2)
    assert (kind, f'"id":"{made}","state":"failed"' in data) == ("event: optimization", True)


def test_what_ended_long_ago_is_told_only_to_whom_asks_since(
    client: TestClient, made: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LATE_SECONDS", 0.0)
    with database.read() as session:
        assert set(changes.look(session, ()).seen) == {made}
        before = changes.look(session, ()).now
    say(database, made, jobs.FAILED)
    with database.read() as session:
        assert not changes.look(session, ()).seen
        assert changes.look(session, [made]).seen[made].state == jobs.FAILED
        assert changes.look(session, (), before).seen[made].state == jobs.FAILED


def test_an_id_of_no_event_is_refused(client: TestClient) -> None:
    for name in ("yesterday", "-1", "1e400", "9" * 400):
        answer = client.get("/v1/events", headers={"Last-Event-ID": name})
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_event_id")


def test_more_than_a_process_or_a_user_may_have_are_refused(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "USER_STREAMS", 0)
    (ann,) = users(client, settings, "ann")
    answer = client.get("/v1/events", headers=ann)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")
    monkeypatch.setattr(changes, "LISTENERS", 0)
    assert client.get("/v1/events").json()["code"] == "busy"


@contextmanager
def looks(database: Database) -> Iterator[list[str]]:
    """The times the store was asked what time it is: once a look."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM" not in statement and statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def test_one_look_is_for_all_and_nobody_looks_when_the_last_has_left(
    client: TestClient, made: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOK_SECONDS", 3600.0)
    told = Changes(database)

    async def together() -> None:
        async def first_news() -> bytes:
            async with aclosing(told.listen(b"")) as stream:
                await anext(stream)
                news = await anext(stream)
                await all_heard.wait()
                return news

        all_heard = asyncio.Barrier(50)
        news = await asyncio.gather(*(first_news() for _ in range(50)))
        assert len(set(news)) == 1
        assert made.encode() in news[0]
        assert len(asyncio.all_tasks()) == 1, "the one that looks has ended"

    with looks(database) as asked:
        asyncio.run(together())
    assert len(asked) == 1


def test_who_does_not_keep_up_is_let_go_and_the_others_hear_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_BEHIND", 2)
    told = Changes(database)

    async def together() -> None:
        async with aclosing(told.listen(b"")) as slow, aclosing(told.listen(b"")) as fast:
            await anext(slow)
            await anext(fast)
            for number in range(3):
                told._tell(b"%d" % number)
                assert await anext(fast) == b"%d" % number
            assert [news async for news in slow] == [b"0", b"1"]

    asyncio.run(together())
