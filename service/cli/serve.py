"""What is done where the service runs: ``mixwright serve``, ``web``, ``migrate``, ``token``, ``demo``, ``export``."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from service.cli import (
    FILE,
    FOLDER,
    complaint_of,
    data_option,
    port_option,
    present_token,
    settings_with,
    shown_link,
)
from service.processes.address import (
    AlreadyServed,
    PortInUse,
    UnprotectedBind,
    UnusableDirectory,
    address,
    listen,
    load_token,
)
from store.logs import configure_logging
from store.schema import OldSchema, UnknownRevision, UnusableDatabase, require_schema
from store.settings import NoSuchDevice, Settings

_EXPECTED = (
    *(AlreadyServed, NoSuchDevice, OldSchema, PortInUse),
    *(UnknownRevision, UnprotectedBind, UnusableDatabase, UnusableDirectory),
    OSError,  # of the data directory: it says what cannot be done with which file
)


_host_option = click.option("--host", help="Address to listen on.  [MIXWRIGHT_HOST, 127.0.0.1]")


@click.command()
@data_option
@port_option
@_host_option
@click.option(
    "--data-roots", help="Directories corpora may be read from, separated as in PATH.  [MIXWRIGHT_DATA_ROOTS]"
)
@click.option("--slots", type=click.IntRange(0, 1024), help="Jobs run at once.  [MIXWRIGHT_SLOTS, one a CPU]")
@click.option("--device", help="Torch device of the jobs: cpu, cuda, cuda:1.  [MIXWRIGHT_DEVICE, cpu]")
@click.option("--exit-with-parent", "with_parent", is_flag=True, hidden=True)
def serve(with_parent: bool, **given: Any) -> None:
    """Run the service: API, dashboard and workers, until Ctrl-C."""
    from service.processes.serving import StartFailed
    from service.processes.serving import serve as run_service
    from store.lifeline import exit_with_parent

    settings = settings_with(**given)
    _require_something_to_serve(settings)
    configure_logging(settings)

    def announce(url: str) -> None:
        link = shown_link(url, settings)
        click.echo(f"Mixwright serves {settings.data_directory}\nDashboard: {link}\nAPI:       {url}/v1")

    if with_parent:
        exit_with_parent()
    with complaint_of(*_EXPECTED, StartFailed):
        run_service(settings, announce)


def _require_something_to_serve(settings: Settings) -> None:
    if settings.slots == 0:
        raise click.ClickException(
            "--slots 0 (MIXWRIGHT_SLOTS): nothing would be prepared, sampled or solved; give at least 1, or run "
            "`mixwright web` where the workers are elsewhere"
        )
    for root in settings.roots[:-1]:  # the last is made by the service itself
        if isinstance(root, Path) and not root.is_dir():
            raise click.ClickException(f"--data-roots (MIXWRIGHT_DATA_ROOTS): there is no directory {root}")


@click.command()
@data_option
@port_option
@_host_option
def web(**given: Any) -> None:
    """Run one web process alone (workers run elsewhere, on the same database)."""
    from service.processes.web import run_web

    settings = settings_with(**given)
    with complaint_of(*_EXPECTED):
        load_token(settings)
        require_schema(settings.resolved_database_url)
        with listen(settings.host, settings.port) as listener:
            settings = settings.model_copy(update={"port": listener.getsockname()[1]})
            click.echo(f"Dashboard: {shown_link(address(listener), settings)}")
            run_web(settings, listener)


@click.command()
@data_option
def migrate(**given: Any) -> None:
    """Bring the database to the newest schema."""
    from store.schema import upgrade

    settings = settings_with(**given)
    with complaint_of(*_EXPECTED):
        settings.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        upgrade(settings.resolved_database_url)
    click.echo("The database has the newest schema.")


@click.command()
@data_option
def token(**given: Any) -> None:
    """Print the bearer token, making one on first use in a data directory that is there."""
    click.echo(present_token(settings_with(**given)))


@click.command()
@click.option("--json", "json_file", type=FILE, help="Write the result, then exit.")
@click.option(
    "--processes",
    type=click.IntRange(1, 8),
    default=1,
    help="Train each of the larger models by so many processes of this machine, together.",
)
@data_option
@port_option
def demo(json_file: Path | None, processes: int, **given: Any) -> None:
    """Find a mixture for real text, train a larger model on it, and compare."""
    from service.demo.demo import run_demo

    run_demo(settings_with(**given), json_file, processes)


@click.command()
@click.argument("run_id")
@click.option("--to", "directory", required=True, type=FOLDER, help="Directory to make; it must not exist.")
@data_option
def export(run_id: str, directory: Path, **given: Any) -> None:
    """Write the model of a finished run as a Hugging Face folder, with its tokenizer."""
    from proxy_models.errors import ProxyError
    from proxy_models.export import write_folder
    from service.swarms.endpoints import model_files
    from store.engine import Database
    from store.problems import Problem

    settings = settings_with(**given)
    database = Database(settings.resolved_database_url)
    with complaint_of(Problem, ProxyError), closing(database), settings.reading():
        files = model_files(database, settings, run_id)
        write_folder(files, directory)
    click.echo(f"{directory}: {', '.join(file.name for file in files)}")


@click.command(epilog="Example: mixwright average run_1 run_2 run_3 --to mean, or run_1 --last 4 --to mean")
@click.argument("models", nargs=-1, required=True)
@click.option("--to", "directory", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--last", type=click.IntRange(min=1), help="Of each run so many kept models, the last ones.")
@data_option
def average(models: tuple[str, ...], directory: Path, last: int | None, **given: Any) -> None:
    """Write the mean of models, runs of this data directory or folders, as a model to start from or to export.

    Weights are averaged tensor by tensor; what goes with them is the last one's.
    """
    from proxy_models.average import average_models
    from proxy_models.errors import ProxyError

    if directory.exists():
        raise click.UsageError(f"{directory} exists; give a new folder")
    runs = settings_with(**given).artifacts / "runs"
    with complaint_of(ProxyError):
        folders = [folder for model in models for folder in _folders(runs, model, last)]
        average_models(folders, directory)
    click.echo(f"{directory}: the mean of {len(folders)} models")


def _folders(runs: Path, model: str, last: int | None) -> list[Path]:
    """A run's model, or its ``last`` kept ones; a folder as it is named."""
    run = runs / model
    if not model.startswith("run_") or not run.is_dir():
        return [Path(model)]
    if last is None:
        return [run / "model"]
    kept = sorted((run / "models").glob("step-*"))
    if len(kept) < last:
        raise click.UsageError(
            f"{model} has kept {len(kept)} models; a launch keeps those of its evaluations with keeping.models"
        )
    return kept[-last:]
