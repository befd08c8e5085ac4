"""``mixwright import``: another tool's configuration as a domain set."""

from pathlib import Path

import click

from service.cli import complaint_of, connected, print_json, service_options


@click.command(
    "import",
    epilog="Example: mixwright import generate.yaml > pool.json, or: mixwright import pool:dolma3 --post",
)
@click.argument("given", metavar="FILE|FOLDER|pool:NAME")
@click.option("--name", help="Of the domain set.  [that of the file]")
@click.option("--base", default="", help="Put before every path that is not absolute: /data or s3://bucket.")
@click.option("--post", is_flag=True, help="Make the domain set, and its mixture where it has one.")
@click.option("--json", "as_json", is_flag=True, help="With --post: print the API's answers as JSON.")
@service_options
def import_(
    given: str,
    name: str | None,
    base: str,
    post: bool,
    as_json: bool,
    url: str | None,
    data_directory: Path | None,
) -> None:
    """Read what Olmix, RegMix, Megatron or OLMo-core are configured with as a domain set.

    Prints the API's own document, which `mixwright apply` takes once an optimization is added.
    """
    from exchange.imports import read_import
    from mixing.errors import MixingError

    with complaint_of(MixingError):
        found = read_import(given, name, base)
    click.echo(f"{given} was read as {found.kind}: {len(found.domain_set['domains'])} domains", err=True)
    for note in found.notes:
        click.echo(f"  {note}", err=True)
    document = found.to_dict()
    if not post:
        print_json(document)
        return
    with connected(url, data_directory) as client:
        answers = {"domain_set": client.create_domain_set(found.domain_set)}
        if found.weights is not None:
            answers["mixture"] = client.create_mixture(document["mixture"])
    if as_json:
        print_json(answers)
        return
    click.echo(f"The domain set {found.domain_set['name']} was made.")
    if "mixture" in answers:
        click.echo(f"Its mixture is {answers['mixture']['id']}.")
