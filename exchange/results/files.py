"""Results in JSON (lm-eval, OLMES, Hugging Face's trainer, an object of metrics of anybody's) and in tables."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exchange.results.base import InvalidResults, Measurement, Reader, ResultFile, number
from exchange.sheets import InvalidTable, sheet_of

_NO_FILTER = "none"
_PLAIN_NAME = re.compile(r"(metrics|results|summary|eval)[^/]*\.json$")
_BOOKKEEPING = ("_runtime", "_samples_per_second", "_steps_per_second", "_model_preparation_time")


def _lm_eval(file: ResultFile) -> Iterator[Measurement]:
    """``results: {task: {"acc,none": .5, "acc_stderr,none": .01, "alias": "..."}}`` as ``task/acc``.

    Another filter than ``none`` stays in the name, as lm-eval writes it: ``gsm8k/exact_match,strict-match``.
    """
    for task, metrics in file.document["results"].items():
        if not isinstance(metrics, dict):
            continue
        for name, value in metrics.items():
            metric, _, filtered = name.partition(",")
            measured = number(value)
            if measured is None or metric.endswith("_stderr") or metric == "sample_len":
                continue
            kept = metric if filtered in ("", _NO_FILTER) else name
            yield Measurement(None, f"{task}/{kept}", measured)


def _is_lm_eval(file: ResultFile) -> bool:
    document = file.document
    return isinstance(document, dict) and isinstance(document.get("results"), dict)


def _trainer_state(file: ResultFile) -> Iterator[Measurement]:
    """``log_history``: entries of training, of evaluation and of the end, each with its step."""
    for entry in file.document["log_history"]:
        if not isinstance(entry, dict):
            continue
        step = number(entry.get("step"))
        for name, value in entry.items():
            measured = number(value)
            is_metric = name == "loss" or name.startswith("eval_")
            if measured is not None and is_metric and not name.endswith(_BOOKKEEPING):
                yield Measurement(None, name, measured, None if step is None else int(step))


def _is_trainer_state(file: ResultFile) -> bool:
    document = file.document
    return isinstance(document, dict) and isinstance(document.get("log_history"), list)


def _olmes(file: ResultFile) -> Iterator[Measurement]:
    for line in _lines(file):
        for name, value in line["metrics"].items():
            measured = number(value)
            if measured is not None:
                yield Measurement(None, f"{line['task_name']}/{name}", measured)


def _is_olmes(file: ResultFile) -> bool:
    if file.path.suffix != ".jsonl":
        return False
    lines = _lines(file)
    return bool(lines) and all(
        isinstance(line, dict) and "task_name" in line and isinstance(line.get("metrics"), dict)
        for line in lines
    )


def _lines(file: ResultFile) -> list[Any]:
    try:
        return [json.loads(line) for line in file.data.splitlines() if line.strip()]
    except ValueError:
        return []


def _plain(file: ResultFile) -> Iterator[Measurement]:
    """``{metric: value}``; objects inside are named by a path, and what begins with ``_`` is the tracker's own."""
    yield from _flat(file, file.document, "")


def _flat(file: ResultFile, document: Mapping[str, Any], prefix: str) -> Iterator[Measurement]:
    for name, value in document.items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):
            yield from _flat(file, value, f"{prefix}{name}/")
        elif (measured := number(value)) is not None:
            yield Measurement(None, f"{prefix}{name}", measured)
        elif isinstance(value, list):
            raise InvalidResults(
                f"{file.path}: {prefix}{name} is a list; of a metric there is one value", field=str(file.path)
            )


def _is_plain(file: ResultFile) -> bool:
    """By its name too: a configuration is an object of numbers as well."""
    return bool(_PLAIN_NAME.search(file.path.name)) and isinstance(file.document, dict)


LM_EVAL = Reader("lm-eval", "lm-eval 0.4 (results_*.json)", _is_lm_eval, _lm_eval)
TRAINER_STATE = Reader(
    "trainer-state", "Hugging Face transformers (trainer_state.json)", _is_trainer_state, _trainer_state
)
OLMES = Reader("olmes", "OLMES (metrics-all.jsonl)", _is_olmes, _olmes)
PLAIN = Reader(
    "json",
    "one object of metrics (wandb-summary.json, metrics*.json, results*.json, eval*.json)",
    _is_plain,
    _plain,
)


# Results in a table, a row a run: what W&B and other trackers export, and what people write themselves.

_ENDINGS = frozenset({".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".gz"})
_RUNS_SHOWN = 3


def _read_table(file: ResultFile) -> Iterator[Measurement]:
    """Every column of numbers is a metric, of the run that the row names in whichever column names the most runs."""
    try:
        sheet = sheet_of(file.data, Path(str(file.path)))
        named = {
            name: sum(str(cell).strip() in file.names for cell in cells)
            for name, cells in sheet.columns.items()
        }
        key = max(named, key=lambda name: named[name])
        if not named[key]:
            shown = ", ".join(sorted(file.names)[:_RUNS_SHOWN])
            raise InvalidResults(f"{file.path}: no column names a run, such as {shown}", field=str(file.path))
        metrics = [name for name in sheet.columns if name != key and name and sheet.is_numeric(name)]
        for row, run in enumerate(sheet.columns[key]):
            for name in metrics:
                value = sheet.number(row, name)
                if value is not None:
                    yield Measurement(str(run).strip(), name, value)
    except InvalidTable as error:
        raise InvalidResults(str(error), field=str(file.path), names=error.names) from error


TABLE = Reader(
    "table", "a row a run (W&B and MLflow exports)", lambda file: file.path.suffix in _ENDINGS, _read_table
)
