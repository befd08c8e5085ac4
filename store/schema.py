"""Databases as wholes: their schema, and all rows of one in another.

Bringing a database to the schema that this version of Mixwright expects, and telling whether it is there.

Several processes may start at once against one database, so the first thing an upgrade does is take a lock
the others wait for: an advisory lock in PostgreSQL, a lock on the database's directory for SQLite. All
steps run in one transaction (both databases can roll back a ``CREATE TABLE``): an interrupted upgrade has
not happened.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    JSON,
    Connection,
    MetaData,
    Table,
    event,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.engine import Database
from store.jobs import HELD, QUEUED
from store.tables import Base, Job

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


# All rows of one database into another, empty one: from SQLite to PostgreSQL when one machine is not enough.
#
# Both are at this version's schema. Tables go in the order of their references, in batches, in one transaction: a
# copy that fails has not happened. Every table is then counted and summed up on both sides from what is really
# stored.

BATCH = 500
"""Rows held in memory and sent at once."""


class CopyRefused(RuntimeError):
    """The copy cannot be made, or is not what it was made from; the target has been left as it was."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table that is the same on both sides."""

    name: str
    rows: int
    checksum: str


def copy_database(
    source_url: str, target_url: str, on_table: Callable[[CopiedTable], None] = lambda table: None
) -> list[CopiedTable]:
    """Migrate the target, copy every table, compare, and give back the leases.

    A job that was held is queued again in the copy, its attempt not counted: who holds it writes to the source.
    It goes on from its checkpoint.

    Raises CopyRefused (no such file, target not empty, or rows differ), OldSchema or UnknownRevision.
    """
    if make_url(source_url) == make_url(target_url):
        raise CopyRefused("source and target are the same database")
    path = sqlite_file(source_url)
    if path is not None and not path.is_file():
        raise CopyRefused(f"there is no file {path} to copy from")
    require_schema(source_url)
    upgrade(target_url)
    source, target = Database(source_url), Database(target_url)
    try:
        # The source is only read, in one transaction: one consistent state, whatever is written meanwhile.
        with _one_moment(source) as reading, target.write() as writing:
            _require_empty(writing)
            copied = []
            for table in Base.metadata.sorted_tables:
                copied.append(_copy(table, reading, writing.connection()))
                on_table(copied[-1])
            _give_back_leases(writing)
            return copied
    finally:
        source.close()
        target.close()


@contextmanager
def _one_moment(database: Database) -> Iterator[Connection]:
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield connection


def _require_empty(session: Session) -> None:
    for table in Base.metadata.sorted_tables:
        if session.execute(select(1).select_from(table).limit(1)).first() is not None:
            raise CopyRefused(
                f"the target is not empty: its table {table.name!r} has rows; copy to a new database"
            )


def _copy(table: Table, reading: Connection, writing: Connection) -> CopiedTable:
    own_key = [key for key in table.foreign_keys if key.column.table is table]
    sent, into = 0, _without_json_nulls(table)
    for batch in _batches(table, reading, "id" if own_key else None):
        writing.execute(insert(into), batch)
        sent += len(batch)
    rows, checksum = checksum_of(table, reading)
    found = checksum_of(table, writing)
    if (rows, checksum) != found or sent != rows:
        raise CopyRefused(
            f"table {table.name!r}: {rows} rows went and {found[0]} arrived, or they differ; nothing was kept"
        )
    return CopiedTable(table.name, rows, checksum)


def _without_json_nulls(table: Table) -> Table:
    """The table, to insert into: None as NULL, which a JSON column would otherwise store as a document ``null``."""
    copy = table.to_metadata(MetaData())
    for column in copy.columns:
        if isinstance(column.type, JSON):
            column.type = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    return copy


def _batches(table: Table, reading: Connection, order: str | None) -> Iterator[list[dict[str, Any]]]:
    # A row that names another of its table comes after it: ids grow, and a parent is older than its child.
    query = select(table).order_by(table.c[order]) if order else select(table)
    result = reading.execute(query.execution_options(yield_per=BATCH))
    for rows in result.mappings().partitions():
        yield [dict(row) for row in rows]


def checksum_of(table: Table, connection: Connection) -> tuple[int, str]:
    """Rows, and the sum of their SHA-256 modulo 2^256: in whatever order a database gives them, the same."""
    rows = total = 0
    for row in connection.execute(select(table).execution_options(yield_per=BATCH)):
        canonical = json.dumps(tuple(row), sort_keys=True, separators=(",", ":"), default=str)
        total += int.from_bytes(hashlib.sha256(canonical.encode()).digest(), "big")
        rows += 1
    return rows, f"{total % 2**256:064x}"


def _give_back_leases(session: Session) -> None:
    session.execute(
        update(Job)
        .where(Job.state.in_(HELD))
        .values(
            state=QUEUED,
            attempt=Job.attempt - 1,
            lease_token=None,
            lease_expires_at=None,
            worker=None,
            progress=None,
        )
    )
    session.execute(update(Job).values(hinted_at=None))  # the hints went to the other service's broker
