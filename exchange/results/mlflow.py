"""MLflow's results: the folders of its file store, and its SQLite database, which is the default since 3.0."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath

from exchange.results.base import InvalidResults, Measurement, Reader, ResultFile

_METRICS = "metrics"
_BESIDE = frozenset({"params", "tags", "artifacts", "inputs", "outputs"})


def _run_folder(path: PurePath) -> PurePath | None:
    """``mlruns/<experiment>/<run>`` of ``mlruns/<experiment>/<run>/metrics/<name>``."""
    for folder in path.parents:
        if folder.name == _METRICS and len(folder.parts) > 2:
            return folder.parent
    return None


def _is_metric(file: ResultFile) -> bool:
    if _run_folder(file.path) is None:
        return False
    first = file.data.split(b"\n", 1)[0].split()
    try:
        return len(first) in (2, 3) and all(len([float(cell)]) == 1 for cell in first)
    except ValueError:
        return False


def _metric(file: ResultFile) -> Iterator[Measurement]:
    """Lines of ``milliseconds value step``."""
    folder = _run_folder(file.path)
    assert folder is not None, "the reader knew it"
    name = file.path.relative_to(folder / _METRICS).as_posix()
    run = _called(file, folder)
    for number, line in enumerate(file.data.splitlines(), 1):
        cells = line.split()
        try:
            value, step = float(cells[1]), int(cells[2]) if len(cells) > 2 else None
        except (IndexError, ValueError) as error:
            raise InvalidResults(
                f"{file.path}, line {number}: not 'time value step'", field=str(file.path)
            ) from error
        yield Measurement(run, name, value, step)


def _called(file: ResultFile, folder: PurePath) -> str | None:
    """The run's name: its folder's where that is one of the runs, else its tag."""
    if folder.name in file.names:
        return folder.name
    tag = file.others.get(str(folder / "tags" / "mlflow.runName"))
    return None if tag is None else tag.decode("utf-8", "replace").strip()


def _is_beside(file: ResultFile) -> bool:
    """Parameters, tags and notes of a run or experiment."""
    return file.path.name == "meta.yaml" or any(part in _BESIDE for part in file.path.parent.parts)


def _database(file: ResultFile) -> Iterator[Measurement]:
    query = (
        "SELECT runs.run_uuid, runs.name, metrics.key, metrics.value, metrics.is_nan, metrics.step FROM metrics"
        " JOIN runs ON runs.run_uuid = metrics.run_uuid WHERE runs.lifecycle_stage = 'active'"
        " ORDER BY metrics.step, metrics.timestamp"
    )
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.deserialize(file.data)
            rows = database.execute(query).fetchall()
        except sqlite3.Error as error:
            raise InvalidResults(
                f"{file.path} is no database of MLflow: {error}", field=str(file.path)
            ) from error
    for key, name, metric, value, is_nan, step in rows:
        run = key if key in file.names else name
        yield Measurement(run, metric, float("nan") if is_nan else float(value), step)


MLFLOW = Reader("mlflow", "MLflow 3 file store (mlruns)", _is_metric, _metric, _is_beside)
MLFLOW_DATABASE = Reader(
    "mlflow-database", "MLflow 3 (mlflow.db)", lambda file: file.data[:16] == b"SQLite format 3\0", _database
)
