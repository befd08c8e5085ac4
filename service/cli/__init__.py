"""The commands of ``mixwright``: what several share."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from service.http.auth import UnprotectedBind, load_token
from service.tokens import make_code
from store.engine import Database
from store.settings import Settings

data_option = click.option(
    "--data",
    "data_directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the database, token, shards and checkpoints.  [MIXWRIGHT_DATA_DIRECTORY, .mixwright]",
)
port_option = click.option(
    "--port", type=click.IntRange(0, 65535), help="0: any free one.  [MIXWRIGHT_PORT, 8321]"
)
PLAIN_WIDTH = 100
"""Columns of a table in a file, which has no width of its own."""


def settings_with(**given: Any) -> Settings:
    """The environment's settings with the options that were given laid over them."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        complaints = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise click.ClickException(f"settings: {complaints}") from error


def present_token(settings: Settings) -> str:
    """The operator's token; a complaint where there is neither one nor a service that has made one."""
    if not (settings.token or settings.data_directory.is_dir()):
        raise click.ClickException(
            f"there is no data directory {settings.data_directory}: `mixwright serve` makes it, or choose with"
            " --data, or set MIXWRIGHT_TOKEN"
        )
    with complaint_of(UnprotectedBind, OSError):
        return load_token(settings)


def shown_link(url: str, settings: Settings) -> str:
    """The dashboard's address; with a code for whoever sits at the terminal of a service that made its own token.

    The output of any other is a log, which more people read than may do everything.
    """
    return url if settings.token or not sys.stdout.isatty() else sign_in_link(url, settings)


def sign_in_link(url: str, settings: Settings) -> str:
    """The dashboard's address with a new code, good once (`tokens.make_code`)."""
    with closing(Database(settings.resolved_database_url)) as database, database.write() as session:
        return f"{url}/?code={make_code(session, load_token(settings))}"


@contextmanager
def complaint_of(*errors: type[Exception]) -> Iterator[None]:
    """Within the block ``errors`` are complaints to whoever gave the command: their message, no traceback."""
    try:
        yield
    except errors as error:
        raise click.ClickException(str(error)) from error
