"""Two requests with one key at the same moment make one resource, on both databases."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.http.idempotency import IdempotentRequest, UserKey, do_once
from store.engine import Database
from store.problems import Conflict
from store.schema import upgrade
from store.tables import DomainSet, IdempotencyKey
from tests.servers import scratch_database

THREADS = 8


class Body(BaseModel):
    name: str


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with ExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'mixwright.db'}"
        if request.param == "postgresql":
            # A database of its own: others of the session leave tables behind that no migration made.
            url = stack.enter_context(scratch_database(request.getfixturevalue("postgres_server")))
        upgrade(url)
        database = Database(url)
        stack.callback(database.close)
        yield database


def test_one_key_makes_one_resource_however_many_ask(database: Database) -> None:
    request = IdempotentRequest("domain-sets", UserKey("alice", "key"), Body(name="pool"))
    together = threading.Barrier(THREADS)
    name = "pool"

    def create(session: Session) -> str:
        row = DomainSet(name=name)
        session.add(row)
        session.flush()
        return row.id

    def ask() -> str:
        together.wait()
        return do_once(database, request, create)

    with ThreadPoolExecutor(THREADS) as pool:
        ids = {future.result() for future in [pool.submit(ask) for _ in range(THREADS)]}
    assert len(ids) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).where(DomainSet.name == name)) == 1
        assert session.scalar(select(func.count()).where(IdempotencyKey.key == request.key.stored)) == 1
    with pytest.raises(Conflict, match="different request"):
        do_once(database, IdempotentRequest("domain-sets", request.key, Body(name="other")), create)


def test_a_key_is_its_users_own_and_one_from_before_there_were_users_is_everybodys(
    database: Database,
) -> None:
    def made(name: str) -> Callable[[Session], str]:
        return lambda session: name

    mine, others = (
        IdempotentRequest("e", UserKey(user, "k" * 255), Body(name=user)) for user in ("alice", "bob")
    )
    assert do_once(database, mine, made("first")) == "first"
    assert do_once(database, others, made("second")) == "second"
    assert do_once(database, mine, made("third")) == "first"
    old = IdempotentRequest("e", UserKey("alice", "old"), Body(name="x"))
    with database.write() as session:
        row = IdempotencyKey(key="old", endpoint="e", request_hash=old.request_hash, resource_id="older")
        session.add(row)
    assert do_once(database, old, made("again")) == "older"
