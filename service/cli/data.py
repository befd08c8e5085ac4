"""``mixwright backup``, ``restore`` and ``copy-database``."""

from pathlib import Path
from typing import Any

import click

from service.cli import data_option, settings_with


@click.command()
@data_option
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write.",
)
def backup(target: Path, **given: Any) -> None:
    """Write the data directory to one file, while the service runs or not (SQLite only)."""
    from service.cli.backup import BackupError
    from service.cli.backup import backup as write

    try:
        made = write(settings_with(**given), target)
    except (BackupError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{target}: schema {made.schema}, {made.files} files, {made.size_bytes:,} bytes")


@click.command()
@data_option
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file `mixwright backup` wrote.",
)
def restore(source: Path, **given: Any) -> None:
    """Make a new data directory from a backup."""
    from service.cli.backup import BackupError
    from service.cli.backup import restore as unpack

    settings = settings_with(**given)
    try:
        made = unpack(settings, source)
    except (BackupError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{settings.data_directory}: schema {made.schema}, {made.files} files")


@click.command("copy-database")
@click.option("--from", "source", required=True, help="SQLAlchemy address of the database to read.")
@click.option("--to", "target", required=True, help="SQLAlchemy address of a new, empty database.")
def copy_database(source: str, target: str) -> None:
    """Copy every row to another, empty database: from SQLite to PostgreSQL, or back."""
    from sqlalchemy.exc import SQLAlchemyError

    from store.schema.copy import CopyRefused
    from store.schema.copy import copy_database as copy
    from store.schema.migrate import UnknownRevision
    from store.schema.version import OldSchema

    try:
        tables = copy(source, target, lambda one: click.echo(f"{one.name:20} {one.rows:9,} rows the same"))
    except (CopyRefused, OldSchema, UnknownRevision, SQLAlchemyError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{sum(table.rows for table in tables):,} rows in {len(tables)} tables.")
