"""``mixwright launch`` and ``cancel``."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from service.cli import BAD_ENDS, ENDED_BADLY, Answer, Ended, answering, follow, given, pairs, table
from service.cli.status import said_of

if TYPE_CHECKING:
    from service.client import Client


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
