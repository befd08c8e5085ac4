"""``mixwright tokens``: who may use the service. Speaks to the database itself, so it is the operator's alone."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from service import tokens as access
from service.cli import complaint_of, data_option, settings_with, table
from service.http.schemas import NAME_PATTERN
from service.tokens import LADDER, OPERATOR, Scope
from store.engine import Database
from store.tables import AccessToken

_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Duration(click.ParamType):
    """``90d``, ``12h``, ``30m``, ``2w`` or ``0``, in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """Seconds; fails for anything else."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d{1,5})([mhdw])|0", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90d, 12h or 30m", param, ctx)
        return 0.0 if match.group(1) is None else float(match.group(1)) * _UNIT_SECONDS[match.group(2)]


@click.group()
def tokens() -> None:
    """Tokens of users and programs, with scopes; revoking one asks nobody else for a new one."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([scope.value for scope in LADDER]),
    help="What it may do; write includes read, launch includes write.  [read]",
)
@click.option("--expires", type=Duration(), help="How long it is valid, such as 90d.  [for ever]")
@data_option
def create(name: str, scopes: Sequence[str], expires: float | None, data_directory: Path | None) -> None:
    """Make a token and print its secret, once."""
    if not re.fullmatch(NAME_PATTERN, name) or name == OPERATOR:
        raise click.ClickException(
            "a name has letters, digits, '.', '_' and '-', at most 64, and is not 'operator'"
        )
    if expires == 0:
        raise click.ClickException("a token that expires at once is of no use")
    with _store(data_directory) as session:
        wanted = [Scope(scope) for scope in scopes or ("read",)]
        secret = access.create_token(session, name, wanted, expires)
    _show(secret)


@tokens.command("list")
@data_option
def list_(data_directory: Path | None) -> None:
    """Every token, without its secret: name, scopes, state, created, last used, expiry."""
    with _store(data_directory) as session:
        rows, now = access.list_tokens(session), access.now_of(session)
    titles = ("NAME", "SCOPES", "STATE", "CREATED", "LAST USED", "EXPIRES")
    click.echo(table(titles, [_line(row, now) for row in rows]))


@tokens.command()
@click.argument("name")
@data_option
def revoke(name: str, data_directory: Path | None) -> None:
    """End a token and the browsers it signed in, for good; within two seconds every web process knows."""
    with _store(data_directory) as session:
        access.revoke_token(session, name)
    click.echo(f"The token {name!r} is revoked.")


@tokens.command()
@click.argument("name")
@click.option(
    "--grace",
    type=Duration(),
    default=access.ROTATION_GRACE_SECONDS,
    help="How long the old secret still works; 0 ends it at once.  [24h]",
)
@data_option
def rotate(name: str, grace: float, data_directory: Path | None) -> None:
    """Give a token a new secret and print it, once."""
    with _store(data_directory) as session:
        secret = access.rotate_token(session, name, grace)
    _show(secret)


@contextmanager
def _store(data_directory: Path | None) -> Iterator[Session]:
    settings = settings_with(data_directory=data_directory)
    if settings.database_url is None and not (settings.data_directory / "mixwright.db").exists():
        raise click.ClickException(
            f"there is no database in {settings.data_directory}: start the service once, or `mixwright migrate`"
        )
    try:
        with (
            complaint_of(access.TokenError),
            closing(Database(settings.resolved_database_url)) as database,
            database.write() as session,
        ):
            yield session
    except (OperationalError, ProgrammingError) as error:
        # Not the error's own words: they may name the address of the database.
        raise click.ClickException(
            "the database cannot be used: does it answer, and has `mixwright migrate` brought it up to date?"
        ) from error


def _show(secret: str) -> None:
    click.echo(secret)
    click.echo("This is the only time it is shown. Send it as 'Authorization: Bearer <token>'.", err=True)


def _line(row: AccessToken, now: float) -> tuple[str, ...]:
    return (
        row.name,
        ",".join(scope for scope in LADDER if scope in row.scopes),
        _state(row, now),
        _day(row.created_at),
        _day(row.last_used_at),
        _day(row.expires_at),
    )


def _state(row: AccessToken, now: float) -> str:
    if row.revoked_at is not None:
        return "revoked"
    if row.expires_at is not None and row.expires_at <= now:
        return "expired"
    if row.previous_until is not None and row.previous_until > now:
        return f"old secret until {_day(row.previous_until)}"
    return "valid"


def _day(moment: float | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%MZ")
