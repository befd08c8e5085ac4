"""The commands of ``mixwright``: what several share. Loads nothing but click: every command starts at once."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from service.client import Client
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
json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
PLAIN_WIDTH = 100
"""Columns of a table in a file, which has no width of its own."""
UNREACHABLE, ENDED_BADLY, NOT_YET = 3, 4, 5
EXIT_STATUSES = {
    0: "done",
    1: "refused or failed; standard error says why",
    2: "the command line is wrong",
    UNREACHABLE: "the service does not answer",
    ENDED_BADLY: "what was waited for has failed or was cancelled",
    NOT_YET: "it is not over yet (`watch --timeout`)",
}


def settings_with(**given: Any) -> "Settings":
    """The environment's settings with the options that were given laid over them."""
    from pydantic import ValidationError

    from store.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        complaints = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise click.ClickException(f"settings: {complaints}") from error


def present_token(settings: "Settings") -> str:
    """The operator's token; a complaint where there is neither one nor a service that has made one."""
    from service.operator_token import UnprotectedBind, load_token

    if not (settings.token or settings.data_directory.is_dir()):
        raise click.ClickException(
            f"there is no data directory {settings.data_directory}: `mixwright serve` makes it, or choose with"
            " --data, or set MIXWRIGHT_TOKEN"
        )
    with complaint_of(UnprotectedBind, OSError):
        return load_token(settings)


def shown_link(url: str, settings: "Settings") -> str:
    """The dashboard's address; with a code for whoever sits at the terminal of a service that made its own token.

    The output of any other is a log, which more people read than may do everything.
    """
    return url if settings.token or not sys.stdout.isatty() else sign_in_link(url, settings)


def sign_in_link(url: str, settings: "Settings") -> str:
    """The dashboard's address with a new code, good once (`tokens.make_code`)."""
    from service.operator_token import load_token
    from service.tokens import make_code
    from store.engine import Database

    with closing(Database(settings.resolved_database_url)) as database, database.write() as session:
        return f"{url}/?code={make_code(session, load_token(settings))}"


@contextmanager
def complaint_of(*errors: type[Exception]) -> Iterator[None]:
    """Within the block ``errors`` are complaints to whoever gave the command: their message, no traceback."""
    try:
        yield
    except errors as error:
        raise click.ClickException(str(error)) from error


class Ended(click.ClickException):
    """What a command ends with that is neither done nor refused: one of `EXIT_STATUSES`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # pyright: ignore[reportAttributeAccessIssue] - click reads it of the instance


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url`` and ``--data``: which service, and whose token (`connected`)."""
    return click.option("--url", help="Of the service.  [the one of --data, or http://127.0.0.1:PORT]")(
        data_option(command)
    )


@contextmanager
def connected(url: str | None, data_directory: Path | None) -> Iterator["Client"]:
    """A client of the service of an address, or of a data directory; what goes wrong is a complaint.

    The token is MIXWRIGHT_TOKEN, or the one of the data directory.
    """
    from httpx import InvalidURL

    from mixing.errors import MixingError
    from service.client import ApiError, Client, Unreachable  # loads httpx, which few commands need
    from service.processes.address import ServiceRecord

    settings = settings_with(data_directory=data_directory)
    token = present_token(settings)
    record = ServiceRecord.read(settings.data_directory) if url is None else None
    url = url or (record.url if record else f"http://127.0.0.1:{settings.port}")
    patient: dict[str, Any] = {"patience": PATIENCE_SECONDS} if record is None else {}
    with complaint_of(ApiError, InvalidURL, MixingError, OSError, ValueError):
        try:
            with Client(url, token, **patient) as client:
                yield client
        except Unreachable as error:
            raise Ended(
                f"no service answers at {url} ({error}): start one with `mixwright serve`, or name its --url",
                UNREACHABLE,
            ) from error


PATIENCE_SECONDS = 5.0
"""Where nothing says that a service is there, whoever typed the command does not wait for a restart's length."""


def print_json(document: Any) -> None:
    """A document, for programs."""
    click.echo(json.dumps(document, indent=2, default=str))


def table(rows: list[tuple[str, ...]], right: frozenset[int] = frozenset()) -> str:
    """Rows of text in columns as wide as they need; those of ``right`` end where the others begin."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
