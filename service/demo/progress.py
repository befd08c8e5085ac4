"""Live progress in the terminal: bars where there is one, plain lines where the output goes to a file."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

POLL_SECONDS = 0.5
PLAIN_STEPS = 10
"""A plain line is printed each time another tenth is done."""


@dataclass(frozen=True, slots=True)
class Status:
    """One look at a piece of work: how much is done of what, and a remark (rate, ETA)."""

    done: int
    total: int
    remark: str = ""


class Meter(Protocol):
    """Shows statuses."""

    def show(self, status: Status) -> None:
        """Show the newest status."""
        ...


class _Bar:
    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, remark="")

    def show(self, status: Status) -> None:
        self._progress.update(
            self._task, completed=status.done, total=status.total, remark=status.remark, refresh=True
        )


class _Lines:
    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._shown = -1

    def show(self, status: Status) -> None:
        tenth = PLAIN_STEPS * status.done // max(status.total, 1)
        if tenth != self._shown:
            self._shown = tenth
            self._console.print(
                f"{self._title}: {status.done} of {status.total} {status.remark}".rstrip(),
                highlight=False,
                soft_wrap=True,
            )


@contextmanager
def meter(console: Console, title: str) -> Iterator[Meter]:
    """A meter for one piece of work, fit for what the console is."""
    if not console.is_terminal:
        yield _Lines(console, title)
        return
    columns = (
        TextColumn("{task.description}", style="bold"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[remark]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, title)


def follow(
    fetch: Callable[[], Mapping[str, Any]],
    is_over: Callable[[Mapping[str, Any]], bool],
    show: Callable[[Mapping[str, Any]], None],
) -> Mapping[str, Any]:
    """Ask again until the document says it is over, showing each; answers the last one."""
    while True:
        document = fetch()
        show(document)
        if is_over(document):
            return document
        time.sleep(POLL_SECONDS)


def rate_and_eta(progress: Mapping[str, Any]) -> str:
    """``46,000 tokens/s, 3:20 left`` from the numbers of the API."""
    parts = []
    if progress.get("tokens_per_second"):
        parts.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    if progress.get("eta_seconds"):
        minutes, seconds = divmod(round(progress["eta_seconds"]), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return ", ".join(parts)
