"""``mixwright mixture``: what is done with the mixtures of a running service, over its API."""

import json
from pathlib import Path
from typing import Any

import click

from exchange.formats import FORMATS, write_files
from exchange.text import drawn
from service.cli import complaint_of, data_option, present_token, settings_with
from service.cli.fit import trainer_options


@click.group()
def mixture() -> None:
    """Mixtures of a running service."""


@mixture.command(epilog="Example: mixwright mixture export mix_... --format csv --to here")
@click.argument("mixture_id")
@click.option("--format", "format_name", required=True, metavar="TRAINER", help=f"{', '.join(FORMATS)}.")
@click.option(
    "--to",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write into.",
)
@click.option(
    "--target-tokens",
    type=click.FloatRange(1, 1e15),
    help="Of the training run; the optimization's when left out.",
)
@click.option("--cap", type=float, help="Most epochs of a domain; the optimization's when left out.")
@trainer_options
@click.option("--url", help="Of the service.  [http://127.0.0.1:PORT]")
@click.option("--json", "as_json", is_flag=True, help="Print what the trainer will draw of every domain.")
@data_option
def export(
    mixture_id: str, format_name: str, directory: Path, url: str | None, as_json: bool, **given: Any
) -> None:
    """Write a mixture as a trainer reads it, and say what that will draw.

    The token is MIXWRIGHT_TOKEN, or the one of the data directory.
    """
    from httpx import InvalidURL

    from service.client import ApiError, Client, Unreachable  # loads httpx, which few commands need

    settings = settings_with(data_directory=given.pop("data_directory"))
    token = present_token(settings)
    with complaint_of(ApiError, Unreachable, InvalidURL, OSError, ValueError):
        target, cap = given.pop("target_tokens"), given.pop("cap")
        asked = {"target_tokens": None if target is None else round(target), "repetition_cap": cap, **given}
        with Client(url or f"http://127.0.0.1:{settings.port}", token) as client:
            said = {name: value for name, value in asked.items() if value is not None}
            made = client.export_mixture(mixture_id, format_name, **said)
        write_files(made["files"], directory)
    click.echo(json.dumps(made["realised"], indent=2) if as_json else drawn(made["realised"]))
