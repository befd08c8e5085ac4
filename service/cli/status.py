"""``mixwright status``, ``watch`` and ``runs``: how far things are."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import (
    ENDED_BADLY,
    NOT_YET,
    Ended,
    connected,
    follow,
    json_option,
    left,
    print_json,
    service_options,
    step_of,
    table,
)

if TYPE_CHECKING:
    from service.client import Client

Document = Mapping[str, Any]
_NEWEST = 10
_BAD = ("failed", "cancelled")


@click.command(epilog="Example: mixwright status opt_...")
@click.argument("what", metavar="[OPT|LAUNCH|MIXTURE|DOMAIN_SET]", required=False)
@json_option
@service_options
def status(what: str | None, as_json: bool, url: str | None, data_directory: Path | None) -> None:
    """How far an optimization, a launch or a domain set is; of everything without a name."""
    with connected(url, data_directory) as client:
        document = overview(client) if what is None else look_at(client, what)
    if as_json:
        print_json(document)
    else:
        click.echo("\n".join(_everything(document) if what is None else said_of(document)))


def look_at(client: "Client", what: str) -> Document:
    """The document of an id, or of a domain set by its name."""
    kind = what.partition("_")[0]
    known = {"opt": client.optimization, "launch": client.launch, "mix": client.mixture, "run": client.run}
    return known[kind](what) if "_" in what and kind in known else client.revision(what)


def overview(client: "Client") -> dict[str, Sequence[Document]]:
    """The newest of everything, and every worker."""
    newest: dict[str, Sequence[Document]] = {
        name: list(islice(client.pages(f"/v1/{name}"), _NEWEST))
        for name in ("domain-sets", "optimizations", "launches")
    }
    return {**newest, "workers": list(client.workers())}


def _everything(document: Mapping[str, Sequence[Document]]) -> Iterator[str]:
    optimizations, launches = document["optimizations"], document["launches"]
    busy = sum(worker["state"] == "busy" for worker in document["workers"])
    here = sum(worker["state"] != "gone" for worker in document["workers"])
    yield f"{here} workers, {busy} busy; {len(document['domain-sets'])} domain sets."
    if optimizations:
        rows = [("OPTIMIZATION", "DOMAIN SET", "REVISION", "METHOD", "STATE", "CREATED")]
        rows += [
            (
                row["id"],
                row["domain_set"],
                str(row["revision"]),
                row["method"],
                row["state"],
                row["created_at"][:16],
            )
            for row in optimizations
        ]
        yield "\n" + table(rows, frozenset({2}))
    if launches:
        rows = [("LAUNCH", "MIXTURE", "STATE", "TOKENS", "CREATED")]
        rows += [
            (
                row["id"],
                row["mixture_id"],
                row["state"],
                f"{row['settings']['tokens']:,}",
                row["created_at"][:16],
            )
            for row in launches
        ]
        yield "\n" + table(rows, frozenset({3}))
    if not optimizations:
        yield "No optimization yet: `mixwright apply FILE` starts one."


def said_of(document: Document) -> Iterator[str]:
    """A document in a few lines."""
    kind = document["id"].partition("_")[0]
    if kind == "opt":
        yield from _optimization(document)
    elif kind == "rev":
        yield from _revision(document)
    elif kind == "mix":
        of = f"{document['domain_set']}, revision {document['revision']}"
        yield f"{document['id']}: the {document['kind']} mixture of {of}"
        yield f"`mixwright mixture show {document['id']}` has its weights and evidence."
    else:
        yield from _trained(document)


def _optimization(document: Document) -> Iterator[str]:
    progress, runs = document["progress"], document["progress"]["runs"]
    where = f"{document['domain_set']} revision {document['revision']}, method {document['method']}"
    yield f"{document['id']}: {document['state']} ({where})"
    for stage in progress["stages"]:
        yield f"  {stage['name']:8} {stage['state']:10} {stage['done']}/{stage['total']}  {stage['seconds']:.0f} s"
    waiting = f" {runs['waiting']} waiting for results," if runs["waiting"] else ""
    yield (
        f"  runs: {runs['succeeded']} of {runs['total']} done, {runs['running']} under way,{waiting}"
        f" {runs['failed']} failed;"
        f" {progress['tokens_per_second']:,.0f} tokens/s {left(progress['eta_seconds'] or None)}".rstrip()
    )
    if document.get("can_finish"):
        yield f"  enough results are in for a fit: `mixwright swarm finish {document['id']}` waits for no others"
    if document["mixture_id"]:
        yield f"  mixture: {document['mixture_id']}"
    for lost in document["lost_runs"][:5]:
        yield f"  lost: {lost['run_id']}: {lost['reason']}"
    for warning in document["warnings"]:
        yield f"  beware: {warning}"
    yield from _failed(document)


def _trained(document: Document) -> Iterator[str]:
    step, done, total, rest = step_of(document) if document.get("settings") else (document["state"], 0, 0, "")
    yield f"{document['id']}: {step}" + (
        f" {done:,} of {total:,} tokens {rest}" if document["progress"] else ""
    )
    for name, value in document["metrics"].items():
        yield f"  {name}: {value:.4f}"
    for warning in document.get("warnings", ()):
        yield f"  beware: {warning}"
    yield from _failed(document)


def _revision(document: Document) -> Iterator[str]:
    progress = document["progress"]
    yield f"{document['domain_set']} revision {document['number']}: {document['state']}"
    yield f"  counted {progress['done']} of {progress['total']} {progress['unit']}"
    rows = [("DOMAIN", "TOKENS", "DOCUMENTS")]
    rows += [(row["name"], _count(row["tokens"]), _count(row["documents"])) for row in document["domains"]]
    yield table(rows, frozenset({1, 2}))
    for warning in document["warnings"]:
        yield f"  beware: {warning}"
    yield from _failed(document)


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _failed(document: Document) -> Iterator[str]:
    if failure := document.get("failure"):
        yield f"  failed: {failure['code']}: {failure['detail']}"


@click.command(
    epilog="Example: mixwright watch opt_... && mixwright launch mix_... --size mini-60M --tokens 1e9"
)
@click.argument("what", metavar="OPT|LAUNCH")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    help="Seconds after which to give up, or a few more, with status 5.",
)
@json_option
@service_options
def watch(
    what: str, timeout: float | None, as_json: bool, url: str | None, data_directory: Path | None
) -> None:
    """Follow an optimization or a launch to its end. Its last document is printed; status 4 where it ended badly."""
    with connected(url, data_directory) as client:
        last = follow(client.events(what, timeout))
    if as_json:
        print_json(last)
    else:
        click.echo("\n".join(said_of(last)))
    if last["state"] in _BAD:
        raise Ended(f"{what} has {last['state']}", ENDED_BADLY)
    if last["state"] != "succeeded":
        raise Ended(f"{what} is {last['state']} still", NOT_YET)


@click.command(epilog="Example: mixwright runs opt_... --json | jq '.[].metrics'")
@click.argument("optimization")
@click.option("--state", help="Only those: queued, running, succeeded, failed, cancelled.")
@json_option
@service_options
def runs(
    optimization: str, state: str | None, as_json: bool, url: str | None, data_directory: Path | None
) -> None:
    """The runs of an optimization (or of a swarm), with what they measured."""
    with connected(url, data_directory) as client:
        swarm = optimization if optimization.startswith("swarm_") else _swarm_of(client, optimization)
        rows = [run for run in client.runs(swarm) if state in (None, run["state"])]
    if as_json:
        print_json(rows)
    else:
        click.echo(_table_of_runs(rows))


def _swarm_of(client: "Client", optimization: str) -> str:
    swarm = client.optimization(optimization)["swarm_id"]
    if swarm is None:
        raise click.ClickException(f"{optimization} has no runs yet: its swarm is not sampled")
    return swarm


_SHOWN = 6
"""Metrics a table has room for; all of them are in the JSON."""


def _table_of_runs(runs: Sequence[Document]) -> str:
    if not runs:
        return "No such runs."
    metrics = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    shown = metrics[:_SHOWN]
    rows = [("#", "RUN", "STATE", "TOKENS", "SECONDS", *shown)]
    for run in sorted(runs, key=lambda run: run["index"]):
        values = (run["metrics"].get(name) for name in shown)
        rows.append(
            (
                str(run["index"]),
                run["id"],
                run["failure"]["code"] if run["failure"] else run["state"],
                _count(run["tokens"]),
                "" if run["seconds"] is None else f"{run['seconds']:.1f}",
                *("" if value is None else f"{value:.4f}" for value in values),
            )
        )
    more = f"\nand {len(metrics) - _SHOWN} more metrics: --json has them" if len(metrics) > _SHOWN else ""
    return table(rows, frozenset({0, 3, 4, *range(5, 5 + len(shown))})) + more
