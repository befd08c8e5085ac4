"""``mixwright backup``, ``restore`` and ``copy-database``.

A backup is a whole data directory as one file, taken while jobs go on writing.

The database comes first, by SQLite's online backup: one consistent state, whatever is written meanwhile. Files come
after it. Their names are new for new content and they are never changed, so whatever the copied rows name is among
them; a file that disappears or grows while it is copied belongs to a job that is not finished in the copied rows.
"""

import json
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy_models.stores.local_copies import PUBLISHED
from service.cli import EXISTING_FILE, FILE, complaint_of, data_option, settings_with
from service.processes.address import LOCK_NAME, RECORD_NAME, ServeLock
from store.schema import CopyRefused, OldSchema, UnknownRevision, current, known_revisions
from store.schema import copy_database as copy
from store.settings import Settings

DATABASE = "mixwright.db"
MANIFEST = "backup.json"
FORMAT = 1
_LEFT_OUT = frozenset(
    {LOCK_NAME, RECORD_NAME, "logs", "devices", "laws", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
)
_PATHS = (("domains", "shard_directory"), ("revisions", "tokenizer_path"))
_PATHS_IN_JSON = (
    ("domains", "files"),
    ("revisions", "tokenizer"),
    ("optimizations", "settings"),
    ("launches", "settings"),
)
_PUBLISHED = (PUBLISHED, "shards", "tokenizers", "runs")
_PAGES = 1000
"""Pages copied before a writer gets its turn: 4 MB."""


class BackupError(RuntimeError):
    """A backup or a restore that cannot be done, and what to do instead."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup holds."""

    schema: str
    files: int
    size_bytes: int


def make_backup(settings: Settings, target: Path) -> Backup:
    """Write the data directory of ``settings`` to the new file ``target`` (mode 0600: it has the token).

    Raises BackupError where the database is no SQLite file or ``target`` exists.
    """
    database = _database_file(settings)
    if target.exists():
        raise BackupError(f"{target} exists already; name a new file")
    if not database.exists():
        raise BackupError(f"there is no database at {database}")
    draft = target.with_name(f".{target.name}.partial")
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        snapshot = Path(directory) / DATABASE
        copy_sqlite(database, snapshot)
        schema = current(f"sqlite:///{snapshot}")
        if schema is None:
            raise BackupError(f"{database} has no schema: it is no database of Mixwright")
        try:
            draft.touch(0o600)
            made = _write(draft, snapshot, schema, settings)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    return made


def copy_sqlite(source: Path, target: Path) -> None:
    """One consistent copy of a SQLite database that others may be writing to, checked."""
    reader, writer = sqlite3.connect(source, timeout=30), sqlite3.connect(target)
    try:
        reader.execute("BEGIN")  # one snapshot: a write in between does not start the copy again
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reader.backup(writer, pages=_PAGES)
        verdict = writer.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        reader.close()
        writer.close()
    if verdict != "ok":
        raise BackupError(f"the copy of {source} is damaged: {verdict}")


def _database_file(settings: Settings) -> Path:
    url = make_url(settings.resolved_database_url)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise BackupError(
            "the database is PostgreSQL: use pg_dump, see 'Backup and restore' in docs/operations.md"
        )
    return Path(url.database)


def _write(draft: Path, snapshot: Path, schema: str, settings: Settings) -> Backup:
    data = settings.data_directory
    files = sorted(_files(data, settings.artifact_store is not None))
    with tarfile.open(draft, "w") as archive:
        manifest = snapshot.with_name(MANIFEST)
        about = {"format": FORMAT, "schema": schema, "data_directory": str(data), "made_at": time.time()}
        manifest.write_text(json.dumps(about) + "\n")
        archive.add(manifest, MANIFEST)
        archive.add(snapshot, DATABASE)
        copied = sum(_add(archive, path, data) for path in files)
    return Backup(schema, copied, draft.stat().st_size)


def _files(data: Path, in_store: bool) -> Iterator[Path]:
    """What belongs to the backup; artifacts that are ``in_store`` are safe there, here are copies of them."""
    published = tuple(data / "artifacts" / name for name in _PUBLISHED) if in_store else ()
    for entry in data.iterdir():
        if entry.name in _LEFT_OUT or entry.name.startswith("."):
            continue
        below = entry.rglob("*") if entry.is_dir() and not entry.is_symlink() else [entry]
        yield from (
            path
            for path in below
            if path.is_file() and not path.is_symlink() and not any(map(path.is_relative_to, published))
        )


def _add(archive: tarfile.TarFile, path: Path, data: Path) -> bool:
    """Add a file with the size it has now; False for one of a running job that is gone."""
    try:
        with path.open("rb") as file:
            member = archive.gettarinfo(arcname=str(path.relative_to(data)), fileobj=file)
            archive.addfile(member, file)
    except FileNotFoundError:
        return False
    return True


def restore_backup(settings: Settings, source: Path) -> Backup:
    """Unpack a backup into the data directory of ``settings``, which must be new or empty.

    Raises BackupError for a directory in use, a file that is no backup, and one of a newer version.
    """
    data = settings.data_directory
    _database_file(settings)
    if ServeLock.is_held(data):
        raise BackupError(f"{data} is served now; stop the service or use --data")
    if data.exists() and any(data.iterdir()):
        raise BackupError(f"{data} is not empty; restore into a new directory with --data, then serve that")
    try:
        archive = tarfile.open(source)  # noqa: SIM115 - closed below
    except (OSError, tarfile.TarError) as error:
        raise BackupError(f"{source} cannot be read as a backup: {error}") from error
    with archive:
        about = _manifest(archive, source)
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        archive.extractall(data, filter="data")
        members = len(archive.getmembers()) - 2
    (data / MANIFEST).unlink()
    _move_paths(data / DATABASE, about["data_directory"], str(data))
    return Backup(about["schema"], members, source.stat().st_size)


def _move_paths(database: Path, old: str, new: str) -> None:
    """Let rows that name files of the old data directory name those of the new one."""
    if old == new:
        return
    connection = sqlite3.connect(database)
    with connection:
        for table, column in _PATHS:
            begins = f"substr({column}, 1, {len(old) + 1}) = ?"
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, {len(old) + 1}) WHERE {begins}",
                (new, f"{old}/"),
            )
        before, after = (json.dumps(f"{path}/")[:-1] for path in (old, new))
        for table, column in _PATHS_IN_JSON:
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (before, after))
    connection.close()


def _manifest(archive: tarfile.TarFile, source: Path) -> dict[str, str]:
    try:
        file = archive.extractfile(MANIFEST)
        about = json.loads(file.read()) if file else {}
    except (KeyError, ValueError) as error:
        raise BackupError(f"{source} is no backup of Mixwright: it has no {MANIFEST}") from error
    if about.get("format") != FORMAT or about.get("schema") not in known_revisions():
        raise BackupError(f"{source} was made by a newer version of Mixwright; restore it with that one")
    return about


@click.command()
@data_option
@click.option("--to", "target", required=True, type=FILE, help="The file to write.")
def backup(target: Path, **given: Any) -> None:
    """Write the data directory to one file, while the service runs or not (SQLite only)."""
    with complaint_of(BackupError, OSError):
        made = make_backup(settings_with(**given), target)
    click.echo(f"{target}: schema {made.schema}, {made.files} files, {made.size_bytes:,} bytes")


@click.command()
@data_option
@click.option(
    "--from", "source", required=True, type=EXISTING_FILE, help="The file `mixwright backup` wrote."
)
def restore(source: Path, **given: Any) -> None:
    """Make a new data directory from a backup."""
    settings = settings_with(**given)
    with complaint_of(BackupError, OSError):
        made = restore_backup(settings, source)
    click.echo(f"{settings.data_directory}: schema {made.schema}, {made.files} files")


@click.command("copy-database")
@click.option("--from", "source", required=True, help="SQLAlchemy address of the database to read.")
@click.option("--to", "target", required=True, help="SQLAlchemy address of a new, empty database.")
def copy_database(source: str, target: str) -> None:
    """Copy every row to another, empty database: from SQLite to PostgreSQL, or back."""
    with complaint_of(CopyRefused, OldSchema, UnknownRevision, SQLAlchemyError):
        tables = copy(
            source, target, lambda table: click.echo(f"{table.name:20} {table.rows:9,} rows the same")
        )
    click.echo(f"{sum(table.rows for table in tables):,} rows in {len(tables)} tables.")
