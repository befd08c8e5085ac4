"""``mixwright status``, ``watch``, ``runs``, ``launch``, ``cancel``: how far things are, and what starts them."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from service.cli import (
    BAD_ENDS,
    ENDED_BADLY,
    NOT_YET,
    Answer,
    Ended,
    answering,
    follow,
    given,
    pace,
    pairs,
    step_of,
    table,
)

if TYPE_CHECKING:
    from service.client import Client

Document = Mapping[str, Any]
_NEWEST = 10


@click.command(epilog="Example: mixwright status opt_...")
@click.argument("what", metavar="[OPT|LAUNCH|MIXTURE|DOMAIN_SET]", required=False)
@answering
def status(client: "Client", what: str | None) -> Answer:
    """How far an optimization, a launch or a domain set is; of everything without a name."""
    document = overview(client) if what is None else look_at(client, what)
    return Answer(document, "\n".join(_everything(document) if what is None else said_of(document)))


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
        titles = ("OPTIMIZATION", "DOMAIN SET", "REVISION", "METHOD", "STATE", "CREATED")
        members = ("id", "domain_set", "revision", "method", "state")
        rows = [[*(str(row[name]) for name in members), row["created_at"][:16]] for row in optimizations]
        yield "\n" + table(titles, rows)
    if launches:
        rows = [
            (
                row["id"],
                row["mixture_id"],
                row["state"],
                f"{row['settings']['tokens']:,}",
                row["created_at"][:16],
            )
            for row in launches
        ]
        yield "\n" + table(("LAUNCH", "MIXTURE", "STATE", "TOKENS", "CREATED"), rows)
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


def _counts(progress: Document) -> str:
    runs = progress["runs"]
    waiting = f" {runs['waiting']} waiting for results," if runs["waiting"] else ""
    rate = pace(progress["tokens_per_second"], progress["eta_seconds"])
    said = f"{runs['succeeded']} of {runs['total']} done, {runs['running']} under way,{waiting}"
    return f"{said} {runs['failed']} failed; {rate}".rstrip("; ")


def _optimization(document: Document) -> Iterator[str]:
    progress = document["progress"]
    where = f"{document['domain_set']} revision {document['revision']}, method {document['method']}"
    yield f"{document['id']}: {document['state']} ({where})"
    for stage in progress["stages"]:
        yield f"  {stage['name']:8} {stage['state']:10} {stage['done']}/{stage['total']}  {stage['seconds']:.0f} s"
    if swarms := document["settings"].get("swarms"):
        yield f"  runs: those of {', '.join(swarms)}"
    else:
        yield f"  runs: {_counts(progress)}"
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
    rows = [
        (row["name"], given(row["tokens"], ","), given(row["documents"], ",")) for row in document["domains"]
    ]
    yield table(("DOMAIN", "TOKENS", "DOCUMENTS"), rows)
    for warning in document["warnings"]:
        yield f"  beware: {warning}"
    yield from _failed(document)


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
@answering
def watch(client: "Client", what: str, timeout: float | None) -> Answer:
    """Follow an optimization or a launch to its end. Its last document is printed; status 4 where it ended badly."""
    last = follow(client.events(what, timeout))
    end = None
    if last["state"] in BAD_ENDS:
        end = Ended(f"{what} has {last['state']}", ENDED_BADLY)
    elif last["state"] != "succeeded":
        end = Ended(f"{what} is {last['state']} still", NOT_YET)
    return Answer(last, "\n".join(said_of(last)), end)


@click.command(epilog="Example: mixwright runs opt_... --json | jq '.[].metrics'")
@click.argument("optimization")
@click.option("--state", help="Only those: queued, running, succeeded, failed, cancelled.")
@answering
def runs(client: "Client", optimization: str, state: str | None) -> Answer:
    """The runs of an optimization (or of a swarm), with what they measured."""
    swarms = [optimization] if optimization.startswith("swarm_") else _swarms_of(client, optimization)
    rows = [run for swarm in swarms for run in client.runs(swarm) if state in (None, run["state"])]
    return Answer(rows, _table_of_runs(rows))


def _swarms_of(client: "Client", optimization: str) -> Sequence[str]:
    """That were sampled for it, or that it names."""
    document = client.optimization(optimization)
    swarms = [document["swarm_id"]] if document["swarm_id"] else document["settings"]["swarms"]
    if not swarms:
        raise click.ClickException(f"{optimization} has no runs yet: its swarm is not sampled")
    return swarms


_SHOWN = 6
"""Metrics a table has room for; all of them are in the JSON."""


def _table_of_runs(runs: Sequence[Document]) -> str:
    if not runs:
        return "No such runs."
    metrics = list(dict.fromkeys(name for run in runs for name in run["metrics"]))
    shown = metrics[:_SHOWN]
    rows = [
        (
            str(run["index"]),
            run["name"] or run["id"],
            run["failure"]["code"] if run["failure"] else run["state"],
            given(run["tokens"] or run["requested_tokens"], ","),
            given(run["seconds"], ".1f"),
            *(given(run["metrics"].get(name), ".4f") for name in shown),
        )
        for run in sorted(runs, key=lambda run: run["index"])
    ]
    more = f"\nand {len(metrics) - _SHOWN} more metrics: --json has them" if len(metrics) > _SHOWN else ""
    return table(("#", "RUN", "STATE", "TOKENS", "SECONDS", *shown), rows) + more


@click.command(epilog="Example: mixwright launch mix_... --size mini-60M --tokens 1e9 --dry-run")
@click.argument("mixture")
@click.option("--tokens", type=click.FloatRange(1, 1e18), required=True, help="To train on.")
@click.option("--size", help="Of the built-in trainer's model: nano-1M, mini-60M, ...")
@click.option("--launcher", help="A program the operator configured, instead of the built-in trainer.")
@click.option("--name", help="Given to the launcher.")
@click.option("--cap", "repetition_cap", type=float, help="Refuse a run that reads a domain more often.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--set",
    "further",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other member of the API's request: --set sequence_length=1024 --set learning_rate=3e-4.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be read of each domain, and exactly what would be run; start nothing.",
)
@click.option("--wait", is_flag=True, help="Follow it to its end; status 4 where it ended badly.")
@answering
def launch(
    client: "Client",
    mixture: str,
    tokens: float,
    further: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    **said: Any,
) -> Answer:
    """Start the training run of a mixture."""
    body = {"mixture_id": mixture, "tokens": round(tokens), **_members(further)}
    body |= {name: value for name, value in said.items() if value is not None}
    if dry_run:
        plan = client.plan_launch(body)
        return Answer(plan, _plan(plan))
    document = client.create_launch(body)
    document = follow(client.events(document["id"])) if wait else document
    is_bad = document["state"] in BAD_ENDS
    end = Ended(f"the launch has {document['state']}", ENDED_BADLY) if is_bad else None
    return Answer(document, "\n".join(said_of(document)), end)


def _members(said: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    members = {}
    for name, value in pairs(said, "NAME=VALUE", str.partition):
        try:
            members[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{name}={value}: {error}", param_hint="--set") from error
        if isinstance(members[name], str):
            try:  # YAML 1.1 reads 3e-4 as text
                members[name] = float(value)
            except ValueError:
                continue
    return members


def _plan(plan: Mapping[str, Any]) -> str:
    rows = [
        (
            row["name"],
            f"{row['weight']:.2%}",
            f"{row['tokens']:,.0f}",
            given(row["available_tokens"], ","),
            given(row["epochs"], ".2f"),
        )
        for row in sorted(plan["domains"], key=lambda row: -row["weight"])
    ]
    said = f"{plan['launcher']} would train on {plan['tokens']:,} tokens of {plan['mixture_id']}; nothing is started."
    lines = [said, table(("DOMAIN", "WEIGHT", "TOKENS", "AVAILABLE", "EPOCHS"), rows)]
    if plan["device_hours"] is not None:
        lines.append(f"It takes about {plan['device_hours']:,.2f} device-hours.")
    lines += [f"beware: {warning}" for warning in plan["warnings"]]
    if plan["run"] is not None:
        lines.append(_rendering(plan["run"]))
    return "\n".join(lines)


def _rendering(run: Mapping[str, Any]) -> str:
    """What would be run, as files and the line itself."""
    parts = [f"\n# {path}\n{content.rstrip()}" for path, content in run["files"].items()]
    if (request := run["request"]) is not None:
        parts.append(f"\n{request['method']} {request['url']}\n{request['body']}")
    else:
        parts.append(f"\ncd {shlex.quote(run['directory'])}\n{shlex.join(run['arguments'])}")
    return "\n".join(parts)


@click.command(epilog="Example: mixwright cancel opt_...")
@click.argument("what", metavar="OPT|LAUNCH")
@answering
def cancel(client: "Client", what: str) -> Answer:
    """Stop an optimization or a launch; what is finished stays, and `:retry` of the API goes on with it."""
    stop = client.cancel_launch if what.startswith("launch_") else client.cancel_optimization
    document = stop(what)
    return Answer(document, f"{what} is {document['state']}.")
