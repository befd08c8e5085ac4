"""All rows of one database into another, empty one: from SQLite to PostgreSQL when one machine is not enough.

Both are at this version's schema. Tables go in the order of their references, in batches, in one transaction: a copy
that fails has not happened. Every table is then counted and summed up on both sides from what is really stored.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    MetaData,
    Table,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from store.engine import Database
from store.jobs import HELD, QUEUED
from store.schema import require_schema, sqlite_file, upgrade
from store.tables import Base, Job

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
