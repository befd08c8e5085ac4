"""What a full run says of itself in its directory, and how it is followed from outside. Free of torch."""

import json
import os
from pathlib import Path
from typing import Any

from proxy_models.storage import storage_errors

ORDER, PROGRESS, METRICS, FAILURE = "order.json", "progress.json", "metrics.jsonl", "failure.json"


def add_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Append JSON lines; what a killed process left of one ends where they begin. Raises `StorageFailed`."""
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                content = content if file.read(1) == b"\n" else b"\n" + content
            file.write(content)


class Followed:
    """A run's directory, read again and again: each call answers what is new since the one before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._told, self._read = 0, 0

    def progress(self) -> dict[str, Any] | None:
        """How far it is; None where nothing new was said."""
        path = self.directory / PROGRESS
        try:
            written = path.stat().st_mtime_ns
            if written == self._told:
                return None
            told = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        self._told = written
        return told

    def metrics(self) -> list[dict[str, Any]]:
        """What was measured, as `RunRecord` has it; some of it twice where the run went on from a checkpoint."""
        try:
            with (self.directory / METRICS).open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return []
        self._read += len(whole) + len(newline)
        return [metric for line in whole.splitlines() if (metric := _line(line)) is not None]


def _line(line: bytes) -> dict[str, Any] | None:
    """None of a line whose writer was killed."""
    try:
        metric = json.loads(line)
    except ValueError:
        return None
    return metric if isinstance(metric, dict) else None
