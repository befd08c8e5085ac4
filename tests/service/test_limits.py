"""What one user may take: requests a second, requests that take long, domain sets, optimizations, device-hours."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import anyio
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from sqlalchemy import update

from service.http import routes
from service.http.app import create_app
from service.http.limits import (
    BYTES_A_REQUEST,
    SECONDS_A_REQUEST,
    SHORT_BYTES,
    SLOW_THREADS,
    USER_THREADS,
    Limits,
)
from service.processes.computation import Patience
from service.tokens import ALL_SCOPES, OPERATOR, Principal, create_token
from store.engine import Database
from store.problems import TooManyRequests
from store.schema import upgrade
from store.settings import Settings
from store.tables import DomainSet, Job, Launch, Optimization

ANN = Principal("ann", ALL_SCOPES, token_id="1")
BEN = Principal("ben", ALL_SCOPES, token_id="2")
CHIEF = Principal(OPERATOR, ALL_SCOPES)


@pytest.fixture
def settings(on_both_databases: Settings) -> Settings:
    return on_both_databases.model_copy(
        update={"user_domain_sets": 1, "user_optimizations": 1, "user_device_hours": 10.0}
    )


def users(client: TestClient, settings: Settings, *names: str) -> list[dict[str, str]]:
    database = Database(settings.resolved_database_url, connections=1)
    with database.write() as session:
        secrets = [create_token(session, name, ALL_SCOPES) for name in names]
    database.close()
    return [{"Authorization": f"Bearer {secret}"} for secret in secrets]


def test_a_user_sends_so_many_requests_a_second_and_twice_as_many_after_a_rest(settings: Settings) -> None:
    now = 0.0
    limits = Limits(settings.model_copy(update={"user_requests_per_second": 10.0}), lambda: now)

    waits: list[object] = []

    def admitted(user: Principal, most: int = 100) -> int:
        for number in range(most):
            try:
                limits.admit(user)
            except TooManyRequests as refused:
                waits.append(refused.headers)
                return number
        return most

    assert admitted(ANN) == 20
    assert admitted(BEN) == 20, "another user has a budget of one's own"
    assert admitted(CHIEF) == 100, "the operator has none"
    now = 1.0
    assert admitted(ANN) == 10
    now = 1.5
    assert admitted(ANN) == 5
    assert waits == 4 * [{"Retry-After": "1"}]


def test_refusals_are_sent_one_after_another_and_none_waits_for_long(settings: Settings) -> None:
    now = 0.0
    limits = Limits(settings, lambda: now)
    assert [limits.pause(ANN) for _ in range(3)] == pytest.approx([0.0, 0.02, 0.04])
    assert limits.pause(BEN) == limits.pause("ann") == 0.0, "others' refusals are not waited for"
    assert max(limits.pause(ANN) for _ in range(200)) == pytest.approx(1.0)
    now = 0.5
    assert limits.pause(ANN) == pytest.approx(0.5)
    now = 60.0
    assert limits.pause(ANN) == 0.0


def asked(body: bytes = b"") -> Request:
    """A request whose body comes at once."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({"type": "http", "headers": [(b"content-length", str(len(body)).encode())]}, receive)


def test_a_user_has_so_many_slow_requests_under_way_and_the_others_have_theirs(settings: Settings) -> None:
    limits = Limits(settings.model_copy(update={"user_slow_requests": 1}))

    def slow(
        user: Principal, body: bytes = b"", is_slow: bool = True
    ) -> AbstractAsyncContextManager[Patience]:
        return limits.turn(user, asked(body), is_slow)

    async def together() -> None:
        async with slow(ANN):
            with pytest.raises(TooManyRequests, match="'ann' may have 1"):
                async with slow(ANN):
                    pass
            with pytest.raises(TooManyRequests, match="'ann' may have 1"):
                async with slow(ANN, bytes(SHORT_BYTES + 1), is_slow=False):
                    pass
            async with slow(BEN), slow(CHIEF), slow(CHIEF), slow(ANN, bytes(SHORT_BYTES), is_slow=False):
                pass
        async with slow(ANN):
            pass

    anyio.run(together)


def test_a_user_has_so_many_requests_answered_at_once_and_the_next_wait(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.http.limits.QUEUE_SECONDS", 0.0)
    limits = Limits(settings)

    async def together() -> None:
        async with AsyncExitStack() as held:
            for _ in range(USER_THREADS):
                await held.enter_async_context(limits.turn(ANN, asked(), False))
            with pytest.raises(TooManyRequests, match=f"'ann' may have {USER_THREADS}"):
                await held.enter_async_context(limits.turn(ANN, asked(), False))
            for user in (BEN, CHIEF, *[CHIEF] * USER_THREADS):
                await held.enter_async_context(limits.turn(user, asked(), False))
            await held.enter_async_context(limits.turn(ANN, asked(), True))
        async with limits.turn(ANN, asked(), False):
            pass

    anyio.run(together)


def test_what_waited_is_refused_where_those_before_have_used_what_a_user_may(settings: Settings) -> None:
    limits = Limits(settings.model_copy(update={"user_requests_per_second": 100.0}), lambda: 0.0)

    async def together() -> None:
        async def next_one() -> None:
            with pytest.raises(TooManyRequests, match="100 requests a second"):
                async with limits.turn(ANN, asked(), False):
                    pass

        async with AsyncExitStack() as held, anyio.create_task_group() as others:
            for _ in range(USER_THREADS):
                await held.enter_async_context(limits.turn(ANN, asked(), False))
            others.start_soon(next_one)
            await anyio.wait_all_tasks_blocked()
            limits.charge(ANN, 1000.0)
            await held.aclose()

    anyio.run(together)


def test_what_a_request_waited_for_a_thread_it_does_not_wait_again_for_a_place_to_compute_in(
    settings: Settings,
) -> None:
    now, left = 0.0, []
    limits = Limits(settings.model_copy(update={"wait_seconds": 3600.0}), lambda: now)

    async def together() -> None:
        nonlocal now

        async def next_one() -> None:
            async with limits.turn(ANN, asked(), True) as patience:
                left.append(patience.seconds)

        async with AsyncExitStack() as held, anyio.create_task_group() as others:
            for _ in range(SLOW_THREADS):
                patience = await held.enter_async_context(limits.turn(CHIEF, asked(), True))
                assert patience.seconds == 3600.0
            others.start_soon(next_one)
            await anyio.wait_all_tasks_blocked()
            now = 3000.0
            await held.aclose()

    anyio.run(together)
    assert left == [600.0]


def test_a_long_body_counts_as_many_requests_and_is_taken_whatever_the_limit(settings: Settings) -> None:
    now = 0.0
    limits = Limits(settings.model_copy(update={"user_requests_per_second": 1.0}), lambda: now)

    async def send(body: bytes) -> None:
        async with limits.turn(ANN, asked(body), False):
            pass

    anyio.run(send, bytes(9 * BYTES_A_REQUEST))
    now = 7.5
    with pytest.raises(TooManyRequests):
        limits.admit(ANN)
    now = 8.5
    limits.admit(ANN)


def test_a_request_that_computes_counts_as_many(
    client: TestClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ann,) = users(client, settings, "ann")
    limits = client.app.state.limits  # pyright: ignore[reportAttributeAccessIssue]
    charged: list[float] = []
    monkeypatch.setattr(limits, "charge", lambda _user, requests: charged.append(requests))
    ticks = iter((1.0, 1.25))
    monkeypatch.setattr(routes, "thread_time", lambda: next(ticks))
    assert client.get("/v1/runs", headers=ann).status_code == 200
    assert charged == [0.0, 0.25 / SECONDS_A_REQUEST], "of its body and of a processor"


def test_a_user_stores_so_many_domain_sets_and_the_operator_as_many_as_there_is_room_for(
    client: TestClient, settings: Settings, domain_set: dict[str, Any]
) -> None:
    ann, ben = users(client, settings, "ann", "ben")
    key = {"Idempotency-Key": "once"}
    assert client.post("/v1/domain-sets", json=domain_set, headers=ann | key).status_code == 201
    again = client.post("/v1/domain-sets", json=domain_set, headers=ann | key)
    assert again.status_code == 201, "what was made is answered, whatever the quota"
    refused = client.post("/v1/domain-sets", json=domain_set | {"name": "more"}, headers=ann)
    assert (refused.status_code, refused.json()["code"]) == (403, "too_many_domain_sets")
    assert client.post("/v1/domain-sets", json=domain_set | {"name": "bens"}, headers=ben).status_code == 201
    for name in ("chiefs", "chiefs-too"):
        assert client.post("/v1/domain-sets", json=domain_set | {"name": name}).status_code == 201


def test_a_user_has_so_much_under_way_and_what_ended_counts_no_longer(
    client: TestClient, settings: Settings, optimization: dict[str, Any]
) -> None:
    ann, ben = users(client, settings, "ann", "ben")
    first = client.post("/v1/optimizations", json=optimization, headers=ann)
    assert first.status_code == 202
    refused = client.post("/v1/optimizations", json=optimization, headers=ann)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_optimizations")
    assert int(refused.headers["Retry-After"]) > 0
    assert client.post("/v1/optimizations", json=optimization, headers=ben).status_code == 202
    client.post(f"/v1/optimizations/{first.json()['id']}:cancel", headers=ann)
    assert client.post("/v1/optimizations", json=optimization, headers=ann).status_code == 202


def test_a_user_has_so_many_device_hours_under_way(
    client: TestClient, settings: Settings, optimization: dict[str, Any]
) -> None:
    (ann,) = users(client, settings, "ann")
    client.app.state.settings = settings.model_copy(update={"user_optimizations": 2})  # pyright: ignore
    assert client.post("/v1/optimizations", json=optimization, headers=ann).status_code == 202
    database: Database = client.app.state.database  # pyright: ignore[reportAttributeAccessIssue]
    with database.write() as session:
        session.execute(update(Optimization).values(device_hours=10.5))
    refused = client.post("/v1/optimizations", json=optimization, headers=ann)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_device_hours")
    assert "10.5" in refused.json()["detail"]


def test_launches_under_way_are_device_hours_too(
    client: TestClient, settings: Settings, optimization: dict[str, Any]
) -> None:
    ann, ben = users(client, settings, "ann", "ben")
    weights = {"web:news": 0.5, "web:forums": 0.3, "books": 0.2}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "mine", "weights": weights})
    launch = {"mixture_id": mixture.json()["id"], "size": "nano-1M", "tokens": 1_000_000}
    first = client.post("/v1/launches", json=launch, headers=ann)
    assert first.status_code == 202
    database: Database = client.app.state.database  # pyright: ignore[reportAttributeAccessIssue]
    with database.write() as session:
        session.execute(update(Launch).values(device_hours=10.5))
    for path, body in (("launches", launch), ("optimizations", optimization)):
        refused = client.post(f"/v1/{path}", json=body, headers=ann)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_device_hours")
        assert "10.5" in refused.json()["detail"]
        assert client.post(f"/v1/{path}", json=body, headers=ben).status_code == 202
    client.post(f"/v1/launches/{first.json()['id']}:cancel", headers=ann)
    assert client.post("/v1/launches", json=launch, headers=ann).status_code == 202


@pytest.mark.parametrize("kind", ["optimizations", "launches"])
def test_what_is_retried_is_asked_of_whoever_retries_it_and_is_theirs_from_then_on(
    client: TestClient, settings: Settings, optimization: dict[str, Any], kind: str
) -> None:
    ann, ben = users(client, settings, "ann", "ben")
    weights = {"web:news": 0.5, "web:forums": 0.3, "books": 0.2}
    mixture = client.post("/v1/mixtures", json={"domain_set": "pool", "name": "mine", "weights": weights})
    launch = {"mixture_id": mixture.json()["id"], "size": "nano-1M", "tokens": 1_000_000}
    body, table = {"optimizations": (optimization, Optimization), "launches": (launch, Launch)}[kind]
    database: Database = client.app.state.database  # pyright: ignore[reportAttributeAccessIssue]

    def made(user: dict[str, str]) -> str:
        address = f"/v1/{kind}/{client.post(f'/v1/{kind}', json=body, headers=user).json()['id']}"
        with database.write() as session:
            session.execute(update(table).values(device_hours=6.0))
        return address

    def do(action: str, address: str, user: dict[str, str]) -> int:
        return client.post(f"{address}:{action}", headers=user).status_code

    first = made(ann)
    assert do("cancel", first, ann) == 202
    second = made(ann)
    assert do("retry", first, ann) == 429
    with database.read() as session:
        owned = session.query(Job).where(Job.owner == first.rpartition("/")[2])
        assert {job.state for job in owned} <= {"cancelled"}, "nothing is queued"
    assert do("retry", first, ben) == 202
    with database.read() as session:
        assert {job.user_name for job in owned.with_session(session)} <= {"ben"}
    assert do("cancel", second, ann) == 202
    assert do("retry", second, ben) == 429, "the first is his now"
    assert do("retry", second, ann) == 202


@pytest.fixture
def at_one_moment(monkeypatch: pytest.MonkeyPatch) -> Callable[[Settings], Any]:
    """The application of settings with limits at which no time passes, and refuses at once."""
    monkeypatch.setattr("service.http.limits.REFUSALS_A_SECOND", 1e9)
    monkeypatch.setattr("service.http.app.Limits", lambda settings: Limits(settings, lambda: 0.0))
    return create_app


def test_who_is_not_known_sends_so_many_requests_from_an_address_and_who_is_known_goes_on(
    settings: Settings, at_one_moment: Callable[[Settings], Any]
) -> None:
    upgrade(settings.resolved_database_url)
    app = at_one_moment(settings.model_copy(update={"address_requests_per_second": 4.5}))
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        (ann,) = users(client, settings, "ann")
        assert client.get("/v1/runs", headers=ann).status_code == 200
        for _ in range(8):
            client.get("/login")
        answer = client.get("/login")
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["code"] == "too_many_requests"
        made_up = [{"Authorization": "Bearer x"}, {"Cookie": "mixwright_session=x"}, {}]
        for path in ("/", "/login", "/v1/runs", "/v1/nothing", "/static/nothing", "/metrics"):
            for headers in made_up:
                assert client.get(path, headers=headers).status_code == 429, (path, headers)
        assert client.post("/login", data={"token": "x"}).status_code == 429
        for path in ("/v1/runs", "/v1/nothing", "/runs"):
            assert client.get(path, headers=ann).status_code != 429, path
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "lie", "status"),
    [
        ("/v1/runs", [("Origin", "a"), ("Origin", "b")], 400),
        ("/?code=x", [("Sec-Fetch-Site", "cross-site")], 403),
        ("/v1/nothing", [], 404),
        ("/v1/runs?x=1", [], 422),
    ],
)
def test_whatever_a_request_is_refused_for_it_is_counted(
    settings: Settings,
    at_one_moment: Callable[[Settings], Any],
    path: str,
    lie: list[tuple[str, str]],
    status: int,
) -> None:
    upgrade(settings.resolved_database_url)
    app = at_one_moment(settings.model_copy(update={"user_requests_per_second": 4.5}))
    with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
        (ann,) = users(client, settings, "ann")
        assert client.get("/v1/runs", headers=ann).status_code == 200, "of nobody known yet"
        statuses = [client.get(path, headers=[*ann.items(), *lie]).status_code for _ in range(11)]
        assert (statuses[0], statuses[-1], set(statuses)) == (status, 429, {status, 429})


def test_everything_that_is_made_is_noted_with_who_asked_for_it(
    client: TestClient, settings: Settings, domain_set: dict[str, Any], write_corpus: Callable[..., str]
) -> None:
    (ann,) = users(client, settings, "ann")
    assert client.post("/v1/domain-sets", json=domain_set, headers=ann).status_code == 201
    patch = {"patch": {"add": [{"name": "more", "files": [write_corpus("more")]}]}}
    assert client.post("/v1/domain-sets/pool/revisions", json=patch).status_code == 201
    database: Database = client.app.state.database  # pyright: ignore[reportAttributeAccessIssue]
    with database.read() as session:
        assert [one.user_name for one in session.query(DomainSet)] == ["ann"]
        jobs = session.query(Job).order_by(Job.created_at, Job.id)
        assert [job.user_name for job in jobs] == ["ann", OPERATOR]
