"""Results in a table, a row a run: what W&B and other trackers export, and what people write themselves."""

from collections.abc import Iterator
from pathlib import Path

from exchange.results.base import InvalidResults, Measurement, Reader, ResultFile
from exchange.sheets import InvalidTable, sheet_of

_ENDINGS = frozenset({".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".gz"})
_RUNS_SHOWN = 3


def _read(file: ResultFile) -> Iterator[Measurement]:
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
    "table", "a row a run (W&B and MLflow exports)", lambda file: file.path.suffix in _ENDINGS, _read
)
