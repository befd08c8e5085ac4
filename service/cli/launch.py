"""``mixwright launch`` and ``cancel``."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from service.cli import ENDED_BADLY, Ended, connected, follow, json_option, print_json, service_options, table
from service.cli.status import said_of


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
@json_option
@service_options
def launch(
    mixture: str,
    tokens: float,
    further: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    as_json: bool,
    url: str | None,
    data_directory: Path | None,
    **given: Any,
) -> None:
    """Start the training run of a mixture."""
    body = {"mixture_id": mixture, "tokens": round(tokens), **_members(further)}
    body |= {name: value for name, value in given.items() if value is not None}
    with connected(url, data_directory) as client:
        if dry_run:
            document = client.plan_launch(body)
        else:
            document = client.create_launch(body)
            document = follow(client.events(document["id"])) if wait else document
    if as_json:
        print_json(document)
    elif dry_run:
        click.echo(_plan(document))
    else:
        click.echo("\n".join(said_of(document)))
    if document.get("state") in ("failed", "cancelled"):
        raise Ended(f"the launch has {document['state']}", ENDED_BADLY)


def _members(given: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    members = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not (name and separator):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
        try:
            members[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{text!r}: {error}", param_hint="--set") from error
        if isinstance(members[name], str):
            try:  # YAML 1.1 reads 3e-4 as text
                members[name] = float(value)
            except ValueError:
                continue
    return members


def _plan(plan: Mapping[str, Any]) -> str:
    rows = [("DOMAIN", "WEIGHT", "TOKENS", "AVAILABLE", "EPOCHS")]
    for row in sorted(plan["domains"], key=lambda row: -row["weight"]):
        available, epochs = row["available_tokens"], row["epochs"]
        rows.append(
            (
                row["name"],
                f"{row['weight']:.2%}",
                f"{row['tokens']:,.0f}",
                "?" if available is None else f"{available:,}",
                "?" if epochs is None else f"{epochs:.2f}",
            )
        )
    said = f"{plan['launcher']} would train on {plan['tokens']:,} tokens of {plan['mixture_id']}; nothing is started."
    lines = [said, table(rows, frozenset({1, 2, 3, 4}))]
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
@json_option
@service_options
def cancel(what: str, as_json: bool, url: str | None, data_directory: Path | None) -> None:
    """Stop an optimization or a launch; what is finished stays, and `:retry` of the API goes on with it."""
    with connected(url, data_directory) as client:
        stop = client.cancel_launch if what.startswith("launch_") else client.cancel_optimization
        document = stop(what)
    if as_json:
        print_json(document)
    else:
        click.echo(f"{what} is {document['state']}.")
