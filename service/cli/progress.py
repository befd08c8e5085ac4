"""What a command says while it waits, on standard error: one line that changes on a terminal, else a line a step."""

import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

_WIDTH = 24


class Line:
    """The one line. Use it as a context: on leaving, a terminal has its cursor below it again.

    with Line() as line:
        line.show("train", 12, 50, "3 min left")
    """

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> "Line":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal and self._last is not None:
            print(file=sys.stderr)

    def show(self, step: str, done: int, total: int, more: str = "") -> None:
        """How far a step is; where there is no terminal only at its beginning and every tenth of it."""
        tenth = 10 * done // max(total, 1)
        if not self._is_terminal:
            if self._last != (step, tenth):
                print(f"{step} {done}/{total} {more}".rstrip(), file=sys.stderr)
        else:
            filled = _WIDTH * done // max(total, 1)
            bar = "#" * filled + "." * (_WIDTH - filled)
            print(f"\r\x1b[2K{step:8} [{bar}] {done}/{total}  {more}", end="", file=sys.stderr, flush=True)
        self._last = step, tenth


class Expected:
    """A line that moves by the clock, for work that takes about so long and cannot say how far it is.

        with Expected() as expected:
            expected.begin("fitting 512 runs", 20.0)

    Only on a terminal. It stops short of the end until the work is done.
    """

    def __init__(self) -> None:
        self._line, self._over = Line(), threading.Event()
        self._what, self._seconds, self._since = "", 1.0, time.monotonic()
        self._thread = threading.Thread(target=self._move, daemon=True)

    def __enter__(self) -> "Expected":
        self._line.__enter__()
        if sys.stderr.isatty():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._line.__exit__()

    def begin(self, what: str, seconds: float) -> None:
        """What is done from now on, and about how long it takes."""
        self._what, self._seconds, self._since = what, max(seconds, 1.0), time.monotonic()

    def _move(self) -> None:
        while not self._over.wait(0.2):
            passed = time.monotonic() - self._since
            rest = duration(max(self._seconds - passed, 1.0))
            share = min(passed / self._seconds, 0.99)
            self._line.show(self._what, round(100 * share), 100, f"% about {rest} left")


def follow(documents: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Show how the documents of an optimization or a launch change; the last of them."""
    document: Mapping[str, Any] = {}
    with Line() as line:
        for document in documents:
            line.show(*step_of(document))
    return document


def step_of(document: Mapping[str, Any]) -> tuple[str, int, int, str]:
    """The step an optimization or a launch is at, how much of it is done and how long the rest takes."""
    if "stage" in document:
        progress = document["progress"]
        stages = {stage["name"]: stage for stage in progress["stages"]}
        stage = stages.get(document["stage"]) or progress["stages"][-1]
        eta = progress["eta_seconds"] if stage["name"] == "train" else None
        return stage["name"], stage["done"], stage["total"], left(eta)
    progress = document["progress"] or {"done": 0, "total": document["settings"]["tokens"]}
    rate = progress.get("tokens_per_second")
    seconds = (progress["total"] - progress["done"]) / rate if rate else None
    return document["state"], progress["done"], progress["total"], left(seconds)


def left(seconds: float | None) -> str:
    """A time in words; nothing where it is not known."""
    return "" if seconds is None else f"{duration(seconds)} left"


def duration(seconds: float) -> str:
    """As a person says it: two units at most."""
    for size, unit, smaller, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller)} {lesser}"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.0f} s"
