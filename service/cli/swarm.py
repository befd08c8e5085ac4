"""``mixwright swarm``: swarms of a running service that are trained elsewhere, over its API."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.formats import FORMATS
from exchange.results import REALISED, InvalidResults, drawn_of, may_be_results, of_a_kind, read_results
from service.cli import FOLDER, Answer, answering, complaint_of, connected, service_options
from service.cli.fit import trainer_options

if TYPE_CHECKING:
    from service.client import Client

BATCH = 500
"""Results of so many runs are sent at once."""


@click.group()
def swarm() -> None:
    """Swarms of a running service that are trained elsewhere.

    The token is MIXWRIGHT_TOKEN, or the one of the data directory.
    """


@swarm.command(epilog="Example: mixwright swarm export swarm_... --format regmix --to runs")
@click.argument("swarm_id")
@click.option("--format", "format_name", required=True, metavar="TRAINER", help=f"{', '.join(FORMATS)}.")
@click.option("--to", "directory", required=True, type=FOLDER, help="Directory to make; a folder a run.")
@click.option("--waiting", is_flag=True, help="Only runs whose results are not in, as of the newest round.")
@click.option("--target-tokens", type=click.FloatRange(1, 1e15), help="Of a run; its own when left out.")
@click.option("--cap", "repetition_cap", type=float, help="Most epochs of a domain in a run.  [no cap]")
@trainer_options
@service_options
def export(
    swarm_id: str, format_name: str, directory: Path, url: str | None, waiting: bool, **given: Any
) -> None:
    """Write a configuration a run, as a trainer reads it, and what it will draw.

    Beside them lie ratios.csv with all weights and realised.json with what is drawn of every domain.
    """
    target = given.pop("target_tokens")
    asked = {**given, "target_tokens": None if target is None else round(target)}
    with connected(url, asked.pop("data_directory")) as client:
        said = {name: value for name, value in asked.items() if value not in (None, "")}
        client.export_swarm(swarm_id, format_name, directory, waiting=waiting, **said)
    reports = json.loads((directory / "realised.json").read_text(encoding="utf-8"))
    worst = max(report["largest_error"] for report in reports.values())
    often = [row["epochs"] or 0.0 for report in reports.values() for row in report["domains"]]
    most = f", and no domain read more than {max(often):.2g} times" if any(often) else ""
    click.echo(
        f"{len(reports)} runs in {directory}; every share is drawn within {worst:.1e} of its weight{most}.\n"
        f"Send what they measure with `mixwright swarm results {swarm_id} FILES...`."
    )


@swarm.command(epilog="Example: mixwright swarm results swarm_... runs/*/results_*.json")
@click.argument("swarm_id")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--replace", is_flag=True, help="Other values take the place of earlier ones.")
@answering
def results(client: "Client", swarm_id: str, files: tuple[Path, ...], replace: bool) -> Answer:
    """Send results of runs, from the FILES of evaluators and trainers, or folders of them.

    A run's files lie in a folder of its name; a table names it in a column. Where a folder has the realised.json of
    its export, each run counts as the mixture that its trainer draws by its own rounding.
    """
    with complaint_of(InvalidResults):
        runs = [name for run in client.runs(swarm_id) for name in (run["id"], run["name"]) if name]
        read = read_results(_contents(files, runs), runs)
        asked = client.swarm(swarm_id)["tasks"]
        drawn = _drawn(files)
        sent = [
            {"run": run, "metrics": kept, **({"realised_tokens": drawn[run]} if run in drawn else {})}
            for run, metrics in read.metrics.items()
            if (kept := {name: value for name, value in metrics.items() if not asked or name in asked})
        ]
        if not sent:
            there = sorted({name for metrics in read.metrics.values() for name in metrics})
            raise InvalidResults(
                f"the files have none of the tasks {', '.join(sorted(asked))}; they have {', '.join(there)}"
            )
    batches = (sent[start : start + BATCH] for start in range(0, len(sent), BATCH))
    taken = [client.add_results(swarm_id, batch, replace) for batch in batches]
    counts = taken[-1]["swarm"]["runs"]
    said = f"Results of {len(sent)} runs sent; {counts['succeeded']} of {counts['total']} have theirs in."
    return Answer(taken, said)


@swarm.command(epilog="Example: mixwright swarm finish opt_...")
@click.argument("optimization_id")
@answering
def finish(client: "Client", optimization_id: str) -> Answer:
    """Have an optimization go on with the results that are in; the other runs are lost."""
    document = client.finish_optimization(optimization_id)
    runs = document["progress"]["runs"]
    said = f"{optimization_id} is solved with the results of {runs['succeeded']} of {runs['total']} runs."
    return Answer(document, said)


def _drawn(files: Sequence[Path]) -> dict[str, dict[str, int]]:
    """`{run: tokens of each domain}` by the exact reports in the folders that were named, or above them."""
    places = {folder / REALISED for path in files for folder in (path, *path.absolute().parents[:3])}
    return {
        run: tokens
        for place in sorted(place for place in places if place.is_file())
        for run, tokens in drawn_of(place.read_bytes(), str(place)).items()
    }


def _contents(files: Sequence[Path], runs: Sequence[str]) -> dict[str, bytes]:
    """The files that were named, and of those below a folder what is of a kind of results."""
    named = {str(path): path.read_bytes() for path in files if path.is_file()}
    below = {
        str(path): path.read_bytes()
        for folder in files
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and may_be_results(path)
    }
    return {**of_a_kind(below, runs), **named}
