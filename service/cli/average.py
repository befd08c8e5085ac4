"""``mixwright average``: the mean of saved models."""

from pathlib import Path
from typing import Any

import click

from service.cli import complaint_of, data_option, settings_with


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
