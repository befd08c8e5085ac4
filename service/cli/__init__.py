"""The commands of ``mixwright``: options that several share, and the settings they lead to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from store.settings import Settings

Command = Callable[..., Any]


def data_option(command: Command) -> Command:
    """``--data``."""
    return click.option(
        "--data",
        "data_directory",
        type=click.Path(file_okay=False, path_type=Path),
        help="Directory of the database, token, shards and checkpoints.  [MIXWRIGHT_DATA_DIRECTORY, .mixwright]",
    )(command)


def settings_with(**given: Any) -> Settings:
    """The environment's settings with the options that were given laid over them."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise click.ClickException(f"settings: {complaints}") from error
