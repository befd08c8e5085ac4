"""Noticing that a pooled connection died before a request is answered through it.

A server that ends says goodbye or closes the socket, and either makes an idle socket readable: asking the kernel
costs microseconds where asking the server costs a message for every request. Only a connection that was idle for
long, which a firewall may have forgotten without a word, is asked over the network.
"""

import select
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

IDLE_SECONDS = 30.0
"""A connection unused for so long is asked; shorter than firewalls forget (minutes)."""
_USED_AT = "mixwright_used_at"


def check_before_use(engine: Engine) -> None:
    """Replace dead connections of ``engine``, one of psycopg's, when they are taken from its pool."""

    def taken(connection: Any, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        used_at = entry.info.get(_USED_AT)
        if used_at is None:
            return  # just opened
        if _has_news(connection.pgconn.socket) or time.monotonic() - used_at > IDLE_SECONDS:
            _ask(engine, connection)

    def given_back(_connection: Any, entry: ConnectionPoolEntry) -> None:
        entry.info[_USED_AT] = time.monotonic()

    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", given_back)


def _has_news(descriptor: int) -> bool:
    """Whether an idle connection has something to read: a notice, a goodbye, or the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _ask(engine: Engine, connection: Any) -> None:
    """Raise InvalidatePoolError, which replaces every older connection too, unless the server answers."""
    assert engine.dialect.dbapi is not None
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.dbapi.Error as error:
        raise InvalidatePoolError("the connection died while it was idle") from error
