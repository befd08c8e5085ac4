"""``mixwright fit``: a mixture from the runs somebody has, without a service."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exchange.formats import FORMATS, InvalidExport, export, write_files
from exchange.text import summary
from mixing.errors import MixingError
from service.cli import EXISTING_FILE, FILE, Expected, complaint_of, pairs

if TYPE_CHECKING:
    from exchange.fit import Fit

Options = Mapping[str, Any]


Given = tuple[str, ...]


def _pairs(_: click.Context, __: click.Parameter, given: Given) -> dict[str, str]:
    """``NAME=VALUE`` options as a mapping."""
    return dict(pairs(given, "NAME=VALUE"))


def _numbers(_: click.Context, option: click.Parameter, given: Given) -> dict[str, float]:
    """``NAME=NUMBER`` options; a name alone counts 1."""
    named = pairs([text if "=" in text else f"{text}=1" for text in given], "NAME=NUMBER")
    try:
        return {name: float(value) for name, value in named}
    except ValueError as error:
        raise click.BadParameter(str(error), param=option) from error


def _shares(context: click.Context, option: click.Parameter, given: Given) -> dict[str, tuple[float, float]]:
    """``GROUP=LEAST:MOST``; either may be left out."""
    shares = {}
    for name, value in pairs(given, "GROUP=LEAST:MOST"):
        least, _, most = value.partition(":")
        try:
            shares[name] = (float(least or 0), float(most or 1))
        except ValueError as error:
            raise click.BadParameter(f"{name}={value} is not GROUP=LEAST:MOST", param=option) from error
    return shares


def _families(_: click.Context, __: click.Parameter, given: Given) -> dict[str, Given]:
    return {name: tuple(value.split(",")) for name, value in pairs(given, "NAME=GLOB,...")}


def _listed(_: click.Context, __: click.Parameter, given: str | None) -> tuple[float, ...]:
    return tuple(map(float, given.split(","))) if given else ()


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a trainer's rows are."""
    whole = {"type": click.IntRange(1), "show_default": True}
    rows = click.option("--batch-rows", default=512, help="Rows of a training step.", **whole)(command)
    return click.option("--sequence-length", default=2048, help="Tokens of a row.", **whole)(rows)


def trainer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a trainer's format needs beyond weights and tokens."""
    said = "Of a domain's files, for a trainer: '/data/{domain}/*.npy'."
    return click.option("--path", metavar="TEMPLATE", default="", help=said)(run_options(command))


_OUTPUTS = ("json_file", "html_file", "mixture_out", "format_name", "path", "sequence_length", "batch_rows")
several = partial(click.option, multiple=True)


@click.command(epilog="Example: mixwright fit ratios.csv metrics.csv --tokens pool.csv --target-tokens 1e12")
@click.argument("weights", type=EXISTING_FILE)
@click.argument("metrics_table", metavar="[METRICS]", type=EXISTING_FILE, required=False)
@click.option("--run-id", metavar="COLUMN", help="The column of the run's id, in both tables.")
@several("--weights", "weight_columns", metavar="GLOB", help="Columns that are weights: 'train_*'.")
@several("--metrics", metavar="GLOB", help="Columns that are metrics: 'eval/*'.")
@several("--ignore", "ignored", metavar="GLOB", help="Columns that are neither.")
@click.option("--run-tokens", metavar="COLUMN", help="Of how many tokens each run trained.  [tokens]")
@click.option(
    "--run-parameters", metavar="COLUMN", help="Of how many parameters its model has.  [parameters]"
)
@click.option("--run-seed", metavar="COLUMN", help="Of its seed.  [seed]")
@several("--keep", callback=_pairs, metavar="COLUMN=VALUE", help="Rows to keep: status=completed.")
@click.option("--phase", type=int, help="The phase whose weights count, of columns such as phase_0_web.")
@click.option(
    "--phase-shares",
    callback=_listed,
    metavar="A,B",
    help="Average the phases by their shares of the tokens.",
)
@click.option(
    "--leave-out-runs", "without_faulty", is_flag=True, help="Leave out runs that cannot be read, by name."
)
@click.option(
    "--leave-out-cells", "with_gaps", is_flag=True, help="Fit each metric on the runs that have it."
)
@several(
    "--objective", callback=_numbers, metavar="GLOB[=WEIGHT]", help="Metrics that count; all by default."
)
@several(
    "--family", "families", callback=_families, metavar="NAME=GLOB,...", help="Metrics that count as one."
)
@several("--higher-is-better", metavar="GLOB", help="Metrics that are better when higher: 'acc*'.")
@several("--lower-is-better", metavar="GLOB", help="Metrics that are not, whatever their name.")
@click.option(
    "--unit",
    "units",
    multiple=True,
    callback=_pairs,
    metavar="GLOB=UNIT",
    help="What metrics are measured in: 'eval/*=BPB'.",
)
@click.option(
    "--tokens",
    type=EXISTING_FILE,
    help="Table of domain,tokens: the natural distribution, and with a target the caps.",
)
@click.option("--target-tokens", type=float, help="Tokens of the training run the mixture is for.")
@click.option(
    "--cap", "repetition_cap", type=float, default=4.0, show_default=True, help="Most epochs of a domain."
)
@several("--share", "shares", callback=_shares, metavar="GROUP=LEAST:MOST", help="Bounds: web=0.2:0.6.")
@several(
    "--guard",
    "guard_rails",
    callback=_numbers,
    metavar="METRIC=WORSE",
    help="By how much a metric may be worse than natural.",
)
@click.option("--method", default="mixwright", show_default=True)
@click.option("--regression", help="Another law than the method's.")
@click.option("--kl", "kl_weight", type=float, help="Weight of the distance to the natural distribution.")
@click.option(
    "--prefer",
    type=click.Choice(["natural"]),
    help="Of the mixtures that the runs cannot tell from the best, take the nearest to natural.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write the answer with its evidence; - for standard output alone.",
)
@click.option("--html", "html_file", type=FILE, help="Write the answer as one page that needs nothing else.")
@click.option(
    "--mixture",
    "mixture_out",
    type=click.Path(path_type=Path),
    help="Write the mixture: a .csv, .json or .yaml file, or with --format a directory.",
)
@click.option("--format", "format_name", metavar="TRAINER", help=f"How to write it: {', '.join(FORMATS)}.")
@trainer_options
def fit(weights: Path, metrics_table: Path | None, **given: Any) -> None:
    """The best mixture by the runs of two tables, WEIGHTS and METRICS, or of one that has both.

    Tables are CSV, TSV, Parquet or JSON lines; two are joined by the run's id, never by position.
    """
    from exchange.fit import fit as fit_tables  # loads the solvers, which no other command needs

    out = {name: given.pop(name) for name in _OUTPUTS}
    given["weights"] = given.pop("weight_columns")
    with complaint_of(MixingError):
        with Expected() as expected:
            answer = fit_tables(weights, metrics_table, progress=expected.begin, **given)
        written = None if out["mixture_out"] is None else _export(answer, out)
    document = {**answer.document, "export": written}
    if (path := out["json_file"]) is not None:
        with click.open_file(str(path), "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
    if (path := out["html_file"]) is not None:
        from service.dashboard.pages import standalone_page

        path.write_text(standalone_page(document, weights.stem), encoding="utf-8")
    if str(out["json_file"]) != "-":
        click.echo(summary(document))


def _export(answer: "Fit", out: Options) -> dict[str, Any]:
    """Write the mixture; what the trainer will draw of it."""
    target: Path = out["mixture_out"]
    plain = target.suffix.removeprefix(".")
    name = out["format_name"] or ("yaml" if plain == "yml" else plain)
    if not name:
        raise InvalidExport(
            "--mixture: end the file in .csv, .json or .yaml, or name a --format", field="format"
        )
    run = {option: out[option] for option in ("path", "sequence_length", "batch_rows")}
    made = export(answer.blend(**run), name)
    if target.suffix and len(made.files) == 1:
        target.write_text(next(iter(made.files.values())), encoding="utf-8")
    else:
        write_files(made.files, target)
    return made.realised.to_dict()
