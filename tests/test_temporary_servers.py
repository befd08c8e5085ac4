"""The servers that stand in where none runs: they work, and nothing of them is left."""

from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import make_url

from tests.servers import postgres_answers, redis_answers, scratch_database, scratch_redis, skip_loudly
from tests.temporary_servers import NoBinary, temporary_postgres, temporary_redis


def test_a_temporary_postgres_makes_scratch_databases_and_ends_with_the_block() -> None:
    try:
        with temporary_postgres() as server, scratch_database(server) as url:
            directory = make_url(server).query["host"]
            with psycopg.connect(url.replace("+psycopg", "")) as connection:
                assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
    except NoBinary as error:
        skip_loudly(str(error))
    assert isinstance(directory, str)
    assert not Path(directory).exists()
    assert not postgres_answers(server)


def test_a_temporary_redis_keeps_what_it_is_given_and_ends_with_the_block() -> None:
    try:
        with temporary_redis() as server, scratch_redis(server) as url:
            client = redis.Redis.from_url(url)
            client.set("key", "value")
            assert client.get("key") == b"value"
            client.close()
    except NoBinary as error:
        skip_loudly(str(error))
    assert not redis_answers(server)


def test_a_scratch_redis_avoids_databases_that_hold_something(redis_server: str) -> None:
    with scratch_redis(redis_server) as first, scratch_redis(redis_server) as second:
        assert first != second


def test_a_named_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers import LOCAL_REDIS, _server

    monkeypatch.setenv("MIXWRIGHT_TEST_REDIS", "redis://127.0.0.1:1")
    with pytest.raises(pytest.fail.Exception, match="MIXWRIGHT_TEST_REDIS"):
        next(_server("MIXWRIGHT_TEST_REDIS", LOCAL_REDIS, redis_answers, temporary_redis))
