"""``mixwright mixture``, ``whatif`` and ``compare``: mixtures of a running service, and what is predicted of them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import BAD_ENDS, ENDED_BADLY, FOLDER, Answer, Ended, answering, pairs, print_json, table
from service.cli.fit import run_options, trainer_options

if TYPE_CHECKING:
    from service.client import Client

Document = Mapping[str, Any]
format_option = click.option(
    "--format",
    "format_name",
    required=True,
    metavar="TRAINER",
    help="olmo-core, megatron, streaming, ...: `mixwright mixture formats` lists them.",
)
to_option = click.option("--to", "directory", required=True, type=FOLDER, help="Directory to write into.")
target_option = click.option(
    "--target-tokens",
    type=click.FloatRange(1, 1e15),
    help="Of the training run; the optimization's when left out.",
)


@click.group()
def mixture() -> None:
    """Mixtures of a running service."""


@mixture.command("list", epilog="Example: mixwright mixture list")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@answering
def list_(client: "Client", limit: int) -> Answer:
    """The newest mixtures."""
    found = list(islice(client.pages("/v1/mixtures"), limit))
    members = ("id", "kind", "name", "domain_set", "revision")
    rows = [[*(str(row[name] or "") for name in members), row["created_at"][:16]] for row in found]
    return Answer(found, table(("MIXTURE", "KIND", "NAME", "DOMAIN SET", "REVISION", "CREATED"), rows))


@mixture.command(epilog="Example: mixwright mixture show mix_...")
@click.argument("mixture_id")
@answering
def show(client: "Client", mixture_id: str) -> Answer:
    """The weights, what they are predicted to be worth, what binds and what to beware of."""
    from exchange.text import summary

    document = client.mixture(mixture_id)
    evidence = document["evidence"]
    if evidence and evidence["objective"]:
        return Answer(document, summary(evidence))
    return Answer(document, _weights([document["kind"].upper()], [document["weights"]]))


@mixture.command(epilog="Example: mixwright mixture export mix_... --format csv --to here")
@click.argument("mixture_id")
@format_option
@to_option
@target_option
@click.option("--cap", type=float, help="Most epochs of a domain; the optimization's when left out.")
@trainer_options
@answering
def export(
    client: "Client",
    mixture_id: str,
    format_name: str,
    directory: Path,
    target_tokens: float | None,
    **asked: Any,
) -> Answer:
    """Write a mixture as a trainer reads it, and say what that will draw."""
    asked |= {"target_tokens": target_tokens and round(target_tokens), "repetition_cap": asked.pop("cap")}
    said = {name: value for name, value in asked.items() if value is not None}
    made = client.export_mixture(mixture_id, format_name, **said)
    return _written(made, directory, made["realised"])


def _written(made: Document, directory: Path, document: Document) -> Answer:
    """The files in their place, and what the trainer will draw of them."""
    from exchange.formats import write_files
    from exchange.text import drawn

    write_files(made["files"], directory)
    return Answer(document, drawn(made["realised"]))


@mixture.command(
    epilog="Example: mixwright mixture schedule mix_...=9e11 mix_...=1e11 --format nanotron --to out"
)
@click.argument("phases", nargs=-1, required=True, metavar="MIXTURE=TOKENS...")
@format_option
@to_option
@click.option("--cap", "repetition_cap", type=float, help="Most epochs of a domain over all phases together.")
@trainer_options
@answering
def schedule(
    client: "Client", phases: tuple[str, ...], format_name: str, directory: Path, **asked: Any
) -> Answer:
    """Write mixtures that are trained on one after the other, in one file where the trainer's holds several."""
    tokens = [(name, round(float(count))) for name, count in pairs(phases, "MIXTURE=TOKENS")]
    said = {name: value for name, value in asked.items() if value is not None}
    made = client.export_schedule(tokens, format_name, **said)
    return _written(made, directory, made)


@mixture.command(
    "token-files", epilog="Example: mixwright mixture token-files mix_... --format megatron --wait"
)
@click.argument("mixture_id")
@click.option(
    "--format",
    "format_name",
    required=True,
    type=click.Choice(["olmo-core", "megatron", "streaming", "litdata", "axolotl"]),
)
@target_option
@run_options
@click.option("--wait", is_flag=True, help="Until they are written; status 4 where that failed.")
@answering
def token_files(client: "Client", mixture_id: str, format_name: str, wait: bool, **run: Any) -> Answer:
    """Have the workers write the domains' tokens as a trainer reads them: shuffled, a folder a domain, once.

    For Axolotl, which weighs nothing, all that a run of this mixture reads, repeats included.
    """
    said = {name: round(value) for name, value in run.items() if value is not None}
    document = client.token_files(mixture_id, format_name, wait, **said)
    rows = [
        (name, f"{file['tokens']:,}", f"{file['documents']:,}", file["address"] or file["path"])
        for name, file in document["files"].items()
    ]
    text = f"The token files are {document['state']}.\n" + table(
        ("DOMAIN", "TOKENS", "DOCUMENTS", "PATH"), rows
    )
    if document["state"] not in BAD_ENDS:
        return Answer(document, text)
    failure = document["failure"] or {}
    return Answer(document, text, Ended(f"{failure.get('code')}: {failure.get('detail')}", ENDED_BADLY))


@mixture.command(epilog="Example: mixwright mixture formats")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def formats(as_json: bool) -> None:
    """The formats a mixture can be written in. Needs no service."""
    from exchange.formats import FORMATS

    if as_json:
        kinds = ("name", "title", "unit", "exact", "checked")
        print_json([{kind: getattr(each, kind) for kind in kinds} for each in FORMATS.values()])
        return
    rows = [(each.name, each.title, each.unit, each.checked) for each in FORMATS.values()]
    click.echo(table(("FORMAT", "TRAINER", "A WEIGHT IS OF", "CHECKED"), rows))


@click.command(
    epilog="Example: mixwright whatif opt_... web=0.6 code=0.4, or: mixwright whatif opt_... code=0.4 --from mix_..."
)
@click.argument("optimization")
@click.argument("weights", nargs=-1, required=True, metavar="DOMAIN=WEIGHT... | FILE | MIXTURE")
@click.option(
    "--from",
    "start",
    metavar="MIXTURE",
    help="The other domains keep the ratios they have there.  [every domain must be named]",
)
@answering
def whatif(client: "Client", optimization: str, weights: tuple[str, ...], start: str | None) -> Answer:
    """What an optimization's runs predict of weights of your own, and which of its limits they break.

    FILE has a domain and a weight a row (CSV), or is a JSON or YAML mapping.
    """
    if len(weights) == 1 and weights[0].startswith("mix_"):
        asked = {"mixture_id": weights[0], "name": weights[0]}
    else:
        given = _given(weights)
        if start is not None:
            given = rescaled(client.mixture(start)["weights"], given)
        asked = {"weights": given, "name": "yours"}
    answer = client.evaluate(optimization, asked)
    return Answer(answer, _evaluated(answer))


def _given(weights: Sequence[str]) -> dict[str, float]:
    if len(weights) == 1 and "=" not in weights[0]:
        from exchange.sheets import read_weights

        return read_weights(Path(weights[0]))
    return {name: float(weight) for name, weight in pairs(weights, "DOMAIN=WEIGHT")}


def rescaled(weights: Mapping[str, float], fixed: Mapping[str, float]) -> dict[str, float]:
    """A mixture with some weights fixed and the others in the ratios they had. A complaint where that cannot be."""
    if stray := sorted(set(fixed) - set(weights)):
        raise click.ClickException(f"the mixture has no domain {', '.join(stray)}")
    rest, room = sum(w for name, w in weights.items() if name not in fixed), 1 - sum(fixed.values())
    if room < -1e-9 or (room > 1e-9 and rest <= 0):
        raise click.ClickException(f"the weights that were given leave {room:.4g} for the other domains")
    scale = max(room, 0.0) / rest if rest else 0.0
    return {name: fixed.get(name, weight * scale) for name, weight in weights.items()}


def _evaluated(answer: Document) -> str:
    (said,) = answer["mixtures"]
    objective, unit = said["objective"], said["objective"]["unit"] or ""
    natural = {row["name"]: row["natural"] for row in said["domains"]}
    lines = [
        _weights(["NATURAL", "YOURS"], [natural, said["weights"]], _epochs(said)),
        "",
        f"Predicted: {objective['proposed']:.4f} {unit} where natural has {objective['natural']:.4f}: a gain of"
        f" {objective['gain']:+.4f}{_between(objective['gain_interval'])}.".replace("  ", " "),
        f"By {answer['runs_used']} runs and the regression {answer['regression']}; the nearest of them is"
        f" {said['nearest_run_distance']:.2f} away (L1), the median one {said['run_distances']['median']:.2f}.",
    ]
    if said["worse"]:
        lines += ["", "Gets worse, by the law:"]
        lines += [f"  {row['task']} by {row['change']:.4f}" for row in said["worse"][:20]]
    if said["violated"]:
        lines += ["", "Breaks:", *(f"  {row['statement']}" for row in said["violated"])]
    return "\n".join([*lines, *(f"Note: {note}" for note in answer["notes"])])


def _between(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f" ({bounds[0]:+.4f} to {bounds[1]:+.4f})"


def _epochs(said: Document) -> dict[str, float]:
    return {row["name"]: row["epochs"] for row in said["domains"]}


def _weights(
    titles: Sequence[str],
    mixtures: Sequence[Mapping[str, float]],
    epochs: Mapping[str, float] | None = None,
) -> str:
    """A table of weights, the heaviest of the last mixture first."""
    last = mixtures[-1]
    rows = [
        [
            name,
            *(f"{weights.get(name, 0.0):.2%}" for weights in mixtures),
            *([f"{epochs[name]:.2f}"] if epochs else []),
        ]
        for name in sorted(last, key=lambda name: -last[name])
    ]
    return table(["DOMAIN", *titles, *(["EPOCHS"] if epochs else [])], rows)


@click.command(epilog="Example: mixwright compare mix_... mix_... --by opt_...")
@click.argument("mixtures", nargs=-1, required=True, metavar="MIXTURE MIXTURE...")
@click.option(
    "--by",
    metavar="OPT",
    help="The optimization whose runs predict.  [that of the first mixture that has one]",
)
@answering
def compare(client: "Client", mixtures: tuple[str, ...], by: str | None) -> Answer:
    """Two or more mixtures, domain by domain and, by one optimization's runs, task by task."""
    if len(mixtures) < 2:
        raise click.UsageError("name two mixtures at least")
    documents = [client.mixture(name) for name in mixtures]
    by = by or next((one["optimization_id"] for one in documents if one["optimization_id"]), None)
    answer = None if by is None else _predicted(client, by, mixtures)
    shown = _weights(mixtures, [one["weights"] for one in documents])
    tasks = "No optimization made any of them: name one with --by to have their tasks predicted."
    text = f"{shown}\n\n{tasks if answer is None else _tasks(answer)}"
    return Answer({"mixtures": documents, "evaluation": answer}, text)


def _predicted(client: "Client", by: str, mixtures: Sequence[str]) -> Document | None:
    """What the optimization's runs predict; None where it trained none."""
    from service.client import ApiError

    try:
        return client.evaluate(by, *({"mixture_id": name} for name in mixtures))
    except ApiError as error:
        if error.code == "no_runs":
            return None
        raise


def _tasks(answer: Document) -> str:
    mixtures = answer["mixtures"]

    def cell(row: Document) -> str:
        return f"{row['proposed']:.4f}{_between(row['gain_interval'])}"

    rows = [["objective", *(cell(one["objective"]) for one in mixtures)]]
    for row in zip(*(one["tasks"] for one in mixtures), strict=True):
        rows.append([row[0]["name"], *map(cell, row)])
    shown = table(["PREDICTED (GAIN OVER NATURAL)", *(one["name"] for one in mixtures)], rows)
    breaks = [f"{one['name']}: {row['statement']}" for one in mixtures for row in one["violated"]]
    said = f"By {answer['runs_used']} runs of {answer['optimization_id']}, the regression {answer['regression']}."
    return "\n".join([shown, said, *(["", "Breaks:", *breaks] if breaks else [])])
