"""What runs measured, in the files that evaluators and trainers write: each by the first reader that knows it.

files        lm-eval, OLMES, Hugging Face's trainer, plain objects of metrics, and exports of experiment trackers
tensorboard  event files, without TensorBoard
mlflow       its folders and its database, without MLflow
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from exchange.results.base import InvalidResults, Measurement, Reader, ResultFile
from exchange.results.files import LM_EVAL, OLMES, PLAIN, TABLE, TRAINER_STATE
from exchange.results.mlflow import MLFLOW, MLFLOW_DATABASE
from exchange.results.tensorboard import TENSORBOARD

READERS: tuple[Reader, ...] = (
    *(TENSORBOARD, MLFLOW_DATABASE, MLFLOW),
    *(LM_EVAL, TRAINER_STATE, OLMES, PLAIN, TABLE),
)
"""In the order in which they are asked: what is told by its name before what is told by its content."""


RATIOS, REALISED = "ratios.csv", "realised.json"
"""What an export of a swarm has beside its runs' folders: no results."""
_NAMED = frozenset({".json", ".jsonl", ".csv", ".tsv", ".parquet", ".db"})


def may_be_results(path: PurePath) -> bool:
    """Whether a file that nobody named, as one below a folder, is worth reading for results; by its name alone."""
    if path.name in (RATIOS, REALISED):
        return False
    is_mlflow = "metrics" in path.parent.parts or path.name == "mlflow.runName"
    return path.suffix in _NAMED or ".tfevents." in path.name or is_mlflow


def of_a_kind(files: Mapping[str, bytes], names: Sequence[str]) -> dict[str, bytes]:
    """Those of the files that some reader knows, or that lie beside such."""
    known = frozenset(names)

    def is_known(path: str, data: bytes) -> bool:
        file = ResultFile(PurePath(path), data, files, known)
        return any(reader.knows(file) or reader.is_beside(file) for reader in READERS)

    return {path: data for path, data in files.items() if is_known(path, data)}


def drawn_of(report: bytes, path: str) -> dict[str, dict[str, int]]:
    """`{run: tokens of each domain}` of an export's realised report, of the runs whose trainer draws exactly that.

    Raises:
        InvalidResults: it is none.
    """
    try:
        return {
            run: {row["name"]: round(row["tokens"]) for row in each["domains"]}
            for run, each in json.loads(report).items()
            if each["exact"] and each["target_tokens"] is not None
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidResults(f"{path} is no report of an exported swarm: {error!r}", field=path) from error


@dataclass(frozen=True)
class Results:
    """What files have of runs.

    Attributes:
        metrics: `{run: {metric: value}}`, of several steps the latest.
        left_out: runs that are none of those asked about, as ``run <name>``.
    """

    metrics: Mapping[str, Mapping[str, float]]
    left_out: tuple[str, ...] = ()


def read_results(files: Mapping[str, bytes], names: Sequence[str]) -> Results:
    """The results of runs.

    Args:
        files: `{path: content}`. A run's own files lie in a folder of its name, or are called like it.
        names: of the runs.

    Raises:
        InvalidResults: a file of no kind that is known, damaged, or of no run; a value that is no finite number; two
            values of one metric without a step that says which is later.

    >>> content = b'{"results": {"arc_easy": {"acc,none": 0.41, "acc_stderr,none": 0.01, "alias": "arc_easy"}}}'
    >>> read_results({"out/run-7/results_2025.json": content}, ["run-7"]).metrics
    {'run-7': {'arc_easy/acc': 0.41}}
    """
    latest: dict[str, dict[str, tuple[int | None, float]]] = {}
    strangers: set[str] = set()
    for path, run, one in _measured(files, names):
        if run in names:
            _keep(latest.setdefault(run, {}), run, one, path)
        else:
            strangers.add(run)
    if strangers and not latest:
        raise InvalidResults(
            f"the files are of {', '.join(sorted(strangers)[:5])}, and no run is called so; there are"
            f" {', '.join(list(names)[:5])}",
            field=next(iter(files), ""),
            names=sorted(strangers),
        )
    metrics = {run: _finite(run, values) for run, values in latest.items()}
    return Results(metrics, tuple(f"run {name}" for name in sorted(strangers)))


def read_series(files: Mapping[str, bytes], names: Sequence[str]) -> list[Measurement]:
    """All that the files of one run have of it, every step: its curves.

    Where nothing in them is called like one of its ``names`` and all is of one run, that is it.

    Raises:
        InvalidResults: as `read_results`, but for values: what is no finite number is left out.
    """
    by_run: dict[str, list[Measurement]] = {}
    for _, run, one in _measured(files, names):
        if math.isfinite(one.value):
            by_run.setdefault(run, []).append(one)
    own = [one for run in by_run if run in names for one in by_run[run]]
    if not own and len(by_run) > 1:
        raise InvalidResults(
            f"the files are of several runs, {', '.join(sorted(by_run)[:5])}, and none is called {names[0]}",
            names=sorted(by_run),
        )
    return own or [one for found in by_run.values() for one in found]


def _measured(files: Mapping[str, bytes], names: Sequence[str]) -> Iterator[tuple[str, str, Measurement]]:
    """File, run and measurement; raises InvalidResults."""
    known = frozenset(names)
    for path, data in sorted(files.items()):
        file = ResultFile(PurePath(path), data, files, known)
        if file.path.name in (RATIOS, REALISED):
            continue
        reader = next((one for one in READERS if one.knows(file)), None)
        if reader is None:
            if any(one.is_beside(file) for one in READERS):
                continue
            if file.path.suffix == ".wandb":
                raise InvalidResults(
                    f"{path} is the log of an offline W&B run, which only W&B reads: `wandb sync` it and export the"
                    " table, or have the run write its summary as JSON",
                    field=path,
                )
            kinds = ", ".join(one.name for one in READERS)
            raise InvalidResults(f"{path} is no file of results that is known ({kinds})", field=path)
        for one in reader.read(file):
            run = one.run or file.folder_of_run()
            if run is None:
                raise InvalidResults(
                    f"{path}: no folder on the way, nor the file, is called like a run, such as"
                    f" {next(iter(names), 'none')}",
                    field=path,
                )
            yield path, run, one


def _keep(values: dict[str, tuple[int | None, float]], run: str, one: Measurement, path: str) -> None:
    before = values.get(one.metric)
    if before is not None and one.step is None and before[0] is None and before[1] != one.value:
        raise InvalidResults(
            f"{path}: {one.value} for {one.metric!r} of run {run!r}, which has {before[1]} already; leave the older"
            " file out",
            field=path,
            names=[run, one.metric],
        )
    if before is None or (one.step or 0) >= (before[0] or 0):
        values[one.metric] = (one.step, one.value)


def _finite(run: str, values: Mapping[str, tuple[int | None, float]]) -> dict[str, float]:
    for name, (_, value) in values.items():
        if not math.isfinite(value):
            raise InvalidResults(
                f"run {run!r} ended with {value} for {name!r}; say that it failed, or leave its files out",
                names=[run, name],
            )
    return {name: value for name, (_, value) in values.items()}
