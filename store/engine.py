"""Opening the database: SQLite for one machine, PostgreSQL for a team, one set of rules for both.

A connection of the pool that died is noticed before a request is answered through it. A server that ends says goodbye
or closes the socket, and either makes an idle socket readable: asking the kernel costs microseconds where asking the
server costs a message for every request. Only a connection that was idle for long, which a firewall may have
forgotten without a word, is asked over the network.
"""

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

BUSY_TIMEOUT_MS = 30_000
CONNECTIONS = 16
"""Of one process, where nothing else is said; the web process has as many threads, so that no request waits for
another's connection."""
_WRITES = "mixwright_writes"


def make_engine(url: str, connections: int = CONNECTIONS) -> Engine:
    """An engine for ``url`` of so many connections at most.

    SQLite gets WAL, foreign keys, a busy timeout and explicit transactions.
    """
    # All are kept once opened, for SQLAlchemy closes those of an overflow when they come back: under load a new one
    # would be opened for every few requests. The last one given back is taken first, so the rest of them are idle.
    engine = create_engine(url, pool_size=connections, max_overflow=0, pool_use_lifo=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        check_before_use(engine)
    return engine


def _prepare_sqlite(connection: Any, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late: see _begin_sqlite
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails with "database is locked" at once, busy timeout
    # or not, when somebody wrote in between. One that says at its start that it will write waits its turn.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """The two kinds of transaction. Never hold one open across a file, a child process or the network."""

    def __init__(self, url: str, connections: int = CONNECTIONS) -> None:
        self.engine = make_engine(url, connections)
        self._writer = self.engine.execution_options(**{_WRITES: True})
        # PostgreSQL shows every statement of a READ COMMITTED transaction its own moment, as without one: BEGIN and
        # ROLLBACK would be two of the three messages of most reads, and buy nothing.
        self._reader = (
            self.engine.execution_options(isolation_level="AUTOCOMMIT") if self.skips_locked else self.engine
        )

    @property
    def skips_locked(self) -> bool:
        """Whether concurrent claims step around each other's rows (PostgreSQL) or take turns (SQLite)."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A view of the store, of one moment on SQLite; what is changed in its objects is thrown away."""
        with Session(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One atomic change: committed when the block ends, rolled back when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Give every pooled connection back."""
        self.engine.dispose()


@contextmanager
def database_for(url: str) -> Iterator[Database]:
    """The database with a connection of one's own, for a process that has something to compute and then ends."""
    database = Database(url, connections=1)
    try:
        yield database
    finally:
        database.close()


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
