"""``mixwright demo``."""

import json
import signal
import sys
import threading
from pathlib import Path

import click
from rich.console import Console

from service.client import ApiError, Unreachable
from service.demo.corpora import CorporaError
from service.demo.demo import FULL, Demo, DemoFailed, DemoRequest
from service.processes.serving import StartFailed
from store.settings import Settings

PLAIN_WIDTH = 100


@click.command()
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result, then exit.",
)
@click.option(
    "--data",
    "data_directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of everything the demo makes.  [MIXWRIGHT_DATA_DIRECTORY, .mixwright]",
)
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free one.  [MIXWRIGHT_PORT, 8321]")
def demo(json_file: Path | None, data_directory: Path | None, port: int | None) -> None:
    """Find a mixture for real text, train a larger model on it, and compare."""
    given = {"data_directory": data_directory, "port": port}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    # A file has no width of its own; the tables need this much.
    console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    run = Demo(DemoRequest(settings.data_directory, settings.port, FULL), console)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # asked to stop is asked to stop, by whatever means
    try:
        result = run.run()
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n")
        else:
            _stay(console, run)
    except KeyboardInterrupt:
        console.print("\nStopped. Run the same command again to go on from here.")
        raise SystemExit(130) from None
    except (ApiError, CorporaError, DemoFailed, StartFailed, Unreachable) as error:
        raise click.ClickException(
            f"{error}\nNothing is lost: run the same command again to go on."
        ) from error
    finally:
        run.stop()


def _stay(console: Console, run: Demo) -> None:
    service = run.service
    if service is None:
        return
    console.print(f"\nDashboard: {service.url}/?token={service.token}", highlight=False, soft_wrap=True)
    console.print("Ctrl-C stops the service; `make serve` opens the same data again.", highlight=False)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("\nStopped.")
