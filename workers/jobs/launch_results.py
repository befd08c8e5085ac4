"""What a program of the operator's left of its results, read when it has ended (`exchange.results`)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from exchange.results import InvalidResults, Measurement, may_be_results, of_a_kind, read_series
from store.series import TRAINING_PREFIX
from store.tables import Document

MOST_FILES, MOST_BYTES = 1000, 256 * 2**20
"""Of one launch; what is over is left out, and said."""
_NAMED = 20


def collect(directory: Path, asked: Document) -> Document:
    """``{"final", "metrics", "notes"}`` of a launch's directory: last values of tasks, all series, what is amiss.

    ``asked`` has the ``results`` patterns, the launch's ``names``, its ``tasks``, ``metrics`` (what files call them
    otherwise) and the ``tokens_per_step``. A file that cannot be read costs nothing but itself: the training that
    wrote it is done.
    """
    notes: list[str] = []
    files = dict(_files(directory, asked["results"], asked["names"][0], notes))
    files = of_a_kind(files, asked["names"])
    found = _read(files, asked["names"], notes)
    named = [one._replace(metric=asked["metrics"].get(one.metric, one.metric)) for one in found]
    known = frozenset(asked["tasks"])
    own = [one for one in named if one.metric in known]
    if others := sorted({one.metric for one in named} - known):
        shown = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED} more" if others[_NAMED:] else "")
        notes.append(f"The files also have {shown}: none of the launch's tasks.")
    per_step = asked["tokens_per_step"]
    curves = [one for one in own if one.step is not None]
    curves += [
        one._replace(metric=TRAINING_PREFIX + one.metric)
        for one in named
        if one.metric not in known and one.step is not None
    ]
    return {"final": _last(own), "metrics": [_row(one, per_step) for one in curves], "notes": notes}


def _files(
    directory: Path, patterns: Sequence[str], run: str, notes: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Path and content, below a folder called like the run; nothing that a link leads out of the directory to."""
    root, left, seen = directory.resolve(), MOST_BYTES, set()
    for pattern in patterns:
        matching = sorted(path for path in root.glob(pattern) if path.is_file())
        if not matching:
            notes.append(f"There is no {pattern}.")
        for path in matching:
            name = path.relative_to(root)
            if path in seen or ("*" in pattern and not may_be_results(PurePath(run) / name)):
                continue
            seen.add(path)
            left -= path.stat().st_size
            if left < 0 or len(seen) > MOST_FILES or not path.resolve().is_relative_to(root):
                notes.append(f"{name} and what follows was not read: it is too much, or lies elsewhere.")
                return
            yield str(PurePath(run) / name), path.read_bytes()


def _read(files: dict[str, bytes], names: Sequence[str], notes: list[str]) -> list[Measurement]:
    while files:
        try:
            return read_series(files, names)
        except InvalidResults as error:
            notes.append(str(error))
            if error.field not in files:
                break
            del files[error.field]
    return []


def _last(measured: Sequence[Measurement]) -> dict[str, float]:
    """Each task's value at the last step; one that says no step was measured at the end."""
    latest: dict[str, Measurement] = {}
    for one in measured:
        before = latest.get(one.metric)
        if before is None or _step(one) >= _step(before):
            latest[one.metric] = one
    return {name: one.value for name, one in latest.items()}


def _step(one: Measurement) -> float:
    return float("inf") if one.step is None else one.step


def _row(one: Measurement, tokens_per_step: int) -> Mapping[str, Any]:
    step = one.step or 0
    return {"step": step, "tokens": step * tokens_per_step, "task": one.metric[:255], "value": one.value}
