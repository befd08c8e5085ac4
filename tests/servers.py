"""Real PostgreSQL and Redis for the tests that promise something about them.

In this order: the server named by ``MIXWRIGHT_TEST_POSTGRES`` or ``MIXWRIGHT_TEST_REDIS`` (an error when it
does not answer), one that already runs on this machine, a temporary one started from the binaries on PATH and
stopped afterwards, and else a skip that says what was not tested.
"""

import fcntl
import os
import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from tests.temporary_servers import NoBinary, temporary_postgres, temporary_redis

LOCAL_POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
LOCAL_REDIS = "redis://127.0.0.1:6379"
REDIS_DATABASES = range(15, 0, -1)  # 0 is where a developer's own service keeps its queue
MARKER = "mixwright:test-session"


def skip_loudly(reason: str) -> NoReturn:
    """Skip, and say so in the summary even where skips are not listed."""
    warnings.warn(f"NOT TESTED: {reason}", stacklevel=2)
    pytest.skip(f"NOT TESTED: {reason}")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a server on which databases can be made; its path names the maintenance database."""
    yield from _server("MIXWRIGHT_TEST_POSTGRES", LOCAL_POSTGRES, postgres_answers, temporary_postgres)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A scratch database for this session, dropped at its end."""
    with scratch_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Address of a Redis without a database number."""
    yield from _server("MIXWRIGHT_TEST_REDIS", LOCAL_REDIS, redis_answers, temporary_redis)


@pytest.fixture(scope="session")
def redis_url(redis_server: str) -> Iterator[str]:
    """A database number that nobody else uses, empty now and emptied afterwards."""
    with scratch_redis(redis_server) as url:
        yield url


def _server(
    variable: str,
    local: str,
    answers: Callable[[str], bool],
    temporary: Callable[[], AbstractContextManager[str]],
) -> Iterator[str]:
    named = os.environ.get(variable)
    if named:
        if not answers(named):
            pytest.fail(f"{variable} is set, but nothing that can be used answers there")
        yield named
    elif answers(local):
        yield local
    else:
        try:
            with temporary() as url:
                yield url
        except NoBinary as error:
            skip_loudly(f"{error}; nothing usable answers at {local} either (or set {variable})")


@contextmanager
def scratch_database(server: str) -> Iterator[str]:
    """A new database on ``server``, dropped with whoever is still connected to it."""
    name = f"mixwright_test_{secrets.token_hex(6)}"
    with psycopg.connect(_libpq(server), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def scratch_redis(server: str) -> Iterator[str]:
    """A numbered database of ``server`` that is empty, or was left behind by an earlier test session."""
    for number in REDIS_DATABASES:
        url = f"{server.rstrip('/')}/{number}"
        with _exclusive(f"redis-{number}") as mine:
            client = redis.Redis.from_url(url)
            if mine and (client.dbsize() == 0 or client.exists(MARKER)):
                client.flushdb()
                client.set(MARKER, os.getpid())
                try:
                    yield url
                finally:
                    client.flushdb()
                    client.close()
                return
            client.close()
    skip_loudly(f"all of the Redis databases {list(REDIS_DATABASES)} at {server} hold something")


@contextmanager
def _exclusive(name: str) -> Iterator[bool]:
    """Whether this process is the only one with the lock ``name``; the kernel frees it however we end."""
    with (Path(tempfile.gettempdir()) / f"mixwright-test-{os.getuid()}-{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def postgres_answers(url: str) -> bool:
    """Whether one can log in at ``url`` and make databases there."""
    try:
        with psycopg.connect(_libpq(url), connect_timeout=5) as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            row = connection.execute(query).fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and row[0]


def redis_answers(url: str) -> bool:
    """Whether a Redis at ``url`` lets us in."""
    client = redis.Redis.from_url(url, socket_connect_timeout=5)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.AuthenticationError, redis.ResponseError):
        return False
    finally:
        client.close()


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
