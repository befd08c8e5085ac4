"""The command line: ``mixwright`` or ``python -m service.cli``."""

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from pydantic import ValidationError

from service.auth import UnprotectedBind, load_token
from service.listener import PortInUse, address, listen
from service.service_record import AlreadyServed
from service.settings import Settings

_COMMANDS_ELSEWHERE = {"demo": "service.demo.command:demo"}
_EXPECTED = (AlreadyServed, PortInUse, UnprotectedBind)


class _LazyGroup(click.Group):
    """A group whose heavier commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS_ELSEWHERE:
            module, _, name = _COMMANDS_ELSEWHERE[cmd_name].partition(":")
            return getattr(importlib.import_module(module), name)
        return super().get_command(ctx, cmd_name)


Command = Callable[..., Any]


def _data_option(command: Command) -> Command:
    return click.option(
        "--data",
        "data_directory",
        type=click.Path(file_okay=False, path_type=Path),
        help="Directory of the database, token, shards and checkpoints.  [MIXWRIGHT_DATA_DIRECTORY, .mixwright]",
    )(command)


def _address_options(command: Command) -> Command:
    port = click.option(
        "--port", type=click.IntRange(0, 65535), help="0: any free one.  [MIXWRIGHT_PORT, 8321]"
    )
    host = click.option("--host", help="Address to listen on.  [MIXWRIGHT_HOST, 127.0.0.1]")
    return host(port(command))


def _settings(**given: Any) -> Settings:
    """The environment's settings with the options that were given laid over them."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise click.ClickException(f"settings: {complaints}") from error


@click.group(cls=_LazyGroup)
@click.version_option(package_name="mixwright")
def main() -> None:
    """Find the data mixture for pretraining a language model, with its evidence."""


@main.command()
@_data_option
@_address_options
@click.option(
    "--data-roots", help="Directories corpora may be read from, separated as in PATH.  [MIXWRIGHT_DATA_ROOTS]"
)
@click.option("--slots", type=click.IntRange(0, 1024), help="Jobs run at once.  [MIXWRIGHT_SLOTS, one a CPU]")
@click.option("--device", help="Torch device of the jobs: cpu, cuda, cuda:1.  [MIXWRIGHT_DEVICE, cpu]")
@click.option("--exit-with-parent", "with_parent", is_flag=True, hidden=True)
def serve(with_parent: bool, **given: Any) -> None:
    """Run the service: API, dashboard and workers, until Ctrl-C."""
    from service.lifeline import exit_with_parent
    from service.processes import StartFailed
    from service.processes import serve as run_service

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = _settings(**given)

    def announce(url: str) -> None:
        # A service started by a program writes to a log, where the token has no business.
        link = url if with_parent else _login_link(url, load_token(settings))
        click.echo(f"Mixwright serves {settings.data_directory}\nDashboard: {link}\nAPI:       {url}/v1")

    if with_parent:
        exit_with_parent()
    try:
        run_service(settings, announce)
    except (*_EXPECTED, StartFailed) as error:
        raise click.ClickException(str(error)) from error


def _login_link(url: str, token: str) -> str:
    return f"{url}/?token={quote(token, safe='')}"


@main.command()
@_data_option
@_address_options
def web(**given: Any) -> None:
    """Run the web process alone (workers run elsewhere, on the same database)."""
    from service.web import run_web

    settings = _settings(**given)
    try:
        token = load_token(settings)
        with listen(settings.host, settings.port) as listener:
            settings = settings.model_copy(update={"port": listener.getsockname()[1]})
            click.echo(f"Dashboard: {_login_link(address(listener), token)}")
            run_web(settings, listener)
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_data_option
def migrate(**given: Any) -> None:
    """Bring the database to the newest schema."""
    from service.database.migrate import upgrade

    settings = _settings(**given)
    settings.data_directory.mkdir(parents=True, exist_ok=True)
    upgrade(settings.resolved_database_url)
    click.echo("The database has the newest schema.")


@main.command()
@_data_option
def token(**given: Any) -> None:
    """Print the bearer token, making one on first use."""
    try:
        click.echo(load_token(_settings(**given)))
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
