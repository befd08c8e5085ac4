"""The commands of ``mixwright``: what several share. Loads nothing but click: every command starts at once."""

import functools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from service.client import Client
    from store.settings import Settings

FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
data_option = click.option(
    "--data",
    "data_directory",
    type=FOLDER,
    help="Directory of the database, token, shards and checkpoints.  [MIXWRIGHT_DATA_DIRECTORY, .mixwright]",
)
port_option = click.option(
    "--port", type=click.IntRange(0, 65535), help="0: any free one.  [MIXWRIGHT_PORT, 8321]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's answer as JSON.")
UNREACHABLE, ENDED_BADLY, NOT_YET = 3, 4, 5
BAD_ENDS = ("failed", "cancelled")
EXIT_STATUSES = {
    0: "done",
    1: "refused or failed; standard error says why",
    2: "the command line is wrong",
    UNREACHABLE: "the service does not answer",
    ENDED_BADLY: "what was waited for has failed or was cancelled",
    NOT_YET: "it is not over yet (`watch --timeout`)",
}


def settings_with(**given: Any) -> "Settings":
    """The environment's settings with the options that were given laid over them."""
    from pydantic import ValidationError

    from store.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        complaints = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        raise click.ClickException(f"settings: {complaints}") from error


def present_token(settings: "Settings") -> str:
    """The operator's token; a complaint where there is neither one nor a service that has made one."""
    from service.processes.address import UnprotectedBind, load_token

    if not (settings.token or settings.data_directory.is_dir()):
        raise click.ClickException(
            f"there is no data directory {settings.data_directory}: `mixwright serve` makes it, or choose with"
            " --data, or set MIXWRIGHT_TOKEN"
        )
    with complaint_of(UnprotectedBind, OSError):
        return load_token(settings)


def shown_link(url: str, settings: "Settings") -> str:
    """The dashboard's address; with a code for whoever sits at the terminal of a service that made its own token.

    The output of any other is a log, which more people read than may do everything.
    """
    return url if settings.token or not sys.stdout.isatty() else sign_in_link(url, settings)


def sign_in_link(url: str, settings: "Settings") -> str:
    """The dashboard's address with a new code, good once (`tokens.make_code`)."""
    from service.processes.address import load_token
    from service.tokens import make_code
    from store.engine import Database

    with closing(Database(settings.resolved_database_url)) as database, database.write() as session:
        return f"{url}/?code={make_code(session, load_token(settings))}"


@contextmanager
def complaint_of(*errors: type[Exception]) -> Iterator[None]:
    """Within the block ``errors`` are complaints to whoever gave the command: their message, no traceback."""
    try:
        yield
    except errors as error:
        raise click.ClickException(str(error)) from error


class Ended(click.ClickException):
    """What a command ends with that is neither done nor refused: one of `EXIT_STATUSES`."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.exit_code = status  # pyright: ignore[reportAttributeAccessIssue] - click reads it of the instance


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url`` and ``--data``: which service, and whose token (`connected`)."""
    return click.option("--url", help="Of the service.  [the one of --data, or http://127.0.0.1:PORT]")(
        data_option(command)
    )


@contextmanager
def connected(url: str | None, data_directory: Path | None) -> Iterator["Client"]:
    """A client of the service of an address, or of a data directory; what goes wrong is a complaint.

    The token is MIXWRIGHT_TOKEN, or the one of the data directory.
    """
    from httpx import InvalidURL

    from mixing.errors import MixingError
    from service.client import ApiError, Client, Unreachable  # loads httpx, which few commands need
    from service.processes.address import ServiceRecord

    settings = settings_with(data_directory=data_directory)
    token = present_token(settings)
    record = ServiceRecord.read(settings.data_directory) if url is None else None
    url = url or (record.url if record else f"http://127.0.0.1:{settings.port}")
    patient: dict[str, Any] = {"patience": PATIENCE_SECONDS} if record is None else {}
    with complaint_of(ApiError, InvalidURL, MixingError, OSError, ValueError):
        try:
            with Client(url, token, **patient) as client:
                yield client
        except Unreachable as error:
            raise Ended(
                f"no service answers at {url} ({error}): start one with `mixwright serve`, or name its --url",
                UNREACHABLE,
            ) from error


class Answer(NamedTuple):
    """What a command says: the ``document`` for programs, its ``text`` for people, and an ``end`` that is bad."""

    document: Any
    text: str
    end: Ended | None = None


def answering(command: Callable[..., Answer]) -> Callable[..., None]:
    """A command of a running service: ``command(client, ...)`` answers; this gives it --json, --url and --data."""

    @functools.wraps(command)
    def run(as_json: bool, url: str | None, data_directory: Path | None, **given: Any) -> None:
        with connected(url, data_directory) as client:
            answer = command(client, **given)
        if as_json:
            print_json(answer.document)
        else:
            click.echo(answer.text)
        if answer.end is not None:
            raise answer.end

    return json_option(service_options(run))


PATIENCE_SECONDS = 5.0
"""Where nothing says that a service is there, whoever typed the command does not wait for a restart's length."""


def print_json(document: Any) -> None:
    """A document, for programs."""
    click.echo(json.dumps(document, indent=2, default=str))


def given(value: float | None, how: str) -> str:
    """A value in a format; ``?`` where it is not known."""
    return "?" if value is None else format(value, how)


def pairs(
    arguments: Sequence[str], shape: str, part: Callable[[str, str], tuple[str, str, str]] = str.rpartition
) -> list[tuple[str, str]]:
    """``NAME=VALUE`` arguments, in their order; one that is not of the ``shape`` is complained about."""
    parted = [part(text, "=") for text in arguments]
    if wrong := [
        text for text, (name, _, value) in zip(arguments, parted, strict=True) if not (name and value)
    ]:
        raise click.BadParameter(f"{wrong[0]!r} is not {shape}")
    return [(name, value) for name, _, value in parted]


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text below their titles, in columns as wide as they need; numbers stand at the right."""
    cells = list(rows)
    columns = []
    for column in zip(titles, *cells, strict=True):
        width = max(map(len, column))
        ends = str.rjust if all(map(_NUMBER.fullmatch, column[1:])) else str.ljust
        columns.append([ends(cell, width) for cell in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


_NUMBER = re.compile(r"[-+−–]?[\d.,]*([?%]| s)?")


# What a command says while it waits, on standard error: one line that changes on a terminal, else a line a step.

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
    """The step a revision, an optimization or a launch is at, how much of it is done, and how fast it goes."""
    progress = document["progress"]
    if "stage" in document:
        stages = {stage["name"]: stage for stage in progress["stages"]}
        stage = stages.get(document["stage"]) or progress["stages"][-1]
        more = (
            pace(progress["tokens_per_second"], progress["eta_seconds"]) if stage["name"] == "train" else ""
        )
        return stage["name"], stage["done"], stage["total"], more
    if "settings" not in document:
        return "count", progress["done"], progress["total"], progress["unit"]
    tokens = document["settings"]["tokens"]
    progress = progress or {"done": tokens if document["state"] == "succeeded" else 0, "total": tokens}
    rate = progress.get("tokens_per_second")
    seconds = (progress["total"] - progress["done"]) / rate if rate else None
    return document["state"], progress["done"], progress["total"], pace(rate, seconds)


def pace(rate: float | None, seconds: float | None) -> str:
    """``46,000 tokens/s, 3 min 20 s left``, as far as it is known."""
    said = (f"{rate:,.0f} tokens/s" if rate else "", f"{duration(seconds)} left" if seconds else "")
    return ", ".join(filter(None, said))


def duration(seconds: float) -> str:
    """As a person says it: two units at most."""
    for size, unit, smaller, lesser in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller)} {lesser}"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds >= 60 else f"{seconds:.0f} s"
