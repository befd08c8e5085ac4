"""Bringing a database to the schema this version of Mixwright expects, and telling whether it is there.

Several processes may start at once against one database, so the first thing an upgrade does is take a lock
the others wait for: an advisory lock in PostgreSQL, a lock on the database's directory for SQLite. All
steps run in one transaction (both databases can roll back a ``CREATE TABLE``): an interrupted upgrade has
not happened.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, func, make_url, select
from sqlalchemy.exc import OperationalError

from store.engine import Database

OLDER, NEWER, SAME = "older", "newer", "same"
# A number nobody else picks: the first 8 bytes of SHA-256("mixwright migrations"), signed.
ADVISORY_LOCK = -0x171695A616E126E3


class UnknownRevision(RuntimeError):
    """The database was brought to its schema by another version of Mixwright, most likely a newer one."""


class DanglingReference(RuntimeError):
    """A migration would leave rows that name rows which no longer exist; it has been rolled back."""


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at ``url`` up to ``revision``; does nothing when it is there already.

    A SQLite file and its directory are made when missing, for their owner alone. Raises UnknownRevision for a
    database that a newer version has upgraded, UnusableDatabase for one that cannot be opened or written.
    """
    try:
        with _locked(url) as connection:
            _refuse_newer(_revision(connection))
            command.upgrade(alembic_config(connection), revision)
    except (OperationalError, OSError) as error:
        said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        where = make_url(url).render_as_string(hide_password=True)
        raise UnusableDatabase(f"the database {where} cannot be used: {said}") from error


def downgrade(url: str, revision: str) -> None:
    """Bring the database at ``url`` down to ``revision`` (``base``: no table is left, and no data)."""
    with _locked(url) as connection:
        _refuse_newer(_revision(connection))
        command.downgrade(alembic_config(connection), revision)


def current(url: str) -> str | None:
    """The revision the database at ``url`` is at, or None for one that was never upgraded."""
    path = sqlite_file(url)
    if path is not None and not path.exists():
        return None  # looking must not make the file
    database = Database(url)
    try:
        return schema_of(database)
    finally:
        database.close()


@cache
def head() -> str | None:
    """The newest revision this version of Mixwright knows."""
    return ScriptDirectory.from_config(alembic_config(None)).get_current_head()


@cache
def known_revisions() -> frozenset[str]:
    """Every revision this version of Mixwright knows."""
    scripts = ScriptDirectory.from_config(alembic_config(None)).walk_revisions()
    return frozenset(script.revision for script in scripts)


def alembic_config(connection: Connection | None) -> Config:
    """Alembic's configuration, made here and nowhere written down; commands run on ``connection``."""
    found = find_spec("migrations")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("the package 'migrations' is missing: install the project again")
    config = Config(attributes={"connection": connection})
    # A percent sign starts an interpolation in Alembic's configuration, and may well be part of a path.
    config.set_main_option("script_location", found.submodule_search_locations[0].replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(now: str | None) -> None:
    if age_of(now) == NEWER:
        raise UnknownRevision(
            f"the database is at schema {now}, which this version of Mixwright (schema {head()}) does not know: start"
            " the version that migrated it or a newer one, or point MIXWRIGHT_DATABASE_URL at another database"
        )


@contextmanager
def _locked(url: str) -> Iterator[Connection]:
    """One transaction that no other upgrade of the same database runs beside."""
    path = sqlite_file(url)
    database = Database(url)
    try:
        if path is None:
            with database.write() as session:
                if database.skips_locked:
                    session.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
                yield session.connection()
        else:
            event.listen(database.engine, "connect", _without_foreign_keys)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)  # of an older version; what SQLite writes beside it is as readable as it is
            with _directory_lock(path.parent), database.write() as session:
                connection = session.connection()
                before = _revision(connection)
                yield connection
                if _revision(connection) != before:  # reading every row is for when something changed
                    _require_references(connection)
    finally:
        database.close()


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for another, and for one in memory."""
    address = make_url(url)
    if address.get_backend_name() != "sqlite" or address.database in (None, "", ":memory:"):
        return None
    return Path(address.database).resolve()


@contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    # BEGIN IMMEDIATE comes too late to be the lock: the first processes to open a new file meet at its
    # change to write-ahead logging, which SQLite refuses with "database is locked" without waiting. Locking
    # the directory, not a file of our own, leaves nothing behind; the kernel lets go when the process dies.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _without_foreign_keys(connection: Any, _entry: Any) -> None:
    # Building a table again drops the old one, and with foreign keys on SQLite deletes its rows first. The
    # pragma does nothing inside a transaction; the references are checked before the commit instead.
    connection.execute("PRAGMA foreign_keys=OFF")


def _require_references(connection: Connection) -> None:
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if dangling is not None:
        raise DanglingReference(
            f"row {dangling[1]} of table {dangling[0]!r} names a row of {dangling[2]!r} that does not exist"
        )


class UnusableDatabase(RuntimeError):
    """The database cannot be opened or written: its directory is read-only, or its server does not answer."""


class OldSchema(RuntimeError):
    """The database has not been migrated to the schema this version works with."""


def require_schema(url: str) -> None:
    """Raise OldSchema or UnknownRevision, saying what to do, unless the database at ``url`` is at this schema."""
    now = current(url)
    _refuse_newer(now)
    if age_of(now) == OLDER:
        raise OldSchema(
            f"the database is at schema {now or 'none'} and this version of Mixwright needs {head()}: "
            "run 'mixwright migrate' first"
        )


def schema_of(database: Database) -> str | None:
    """The schema the database says it has; None when it was never migrated."""
    with database.read() as session:
        return _revision(session.connection())


def age_of(revision: str | None) -> str:
    """`OLDER`, `SAME` or `NEWER` than this version's schema; what it does not know was made by a newer one."""
    if revision == head():
        return SAME
    return OLDER if revision is None or revision in known_revisions() else NEWER
