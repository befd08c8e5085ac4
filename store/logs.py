"""One way of logging for every process: web, supervisor, its children, Celery. Lines of text, or of JSON.

A line carries what it is about (request, job, run, worker, attempt) without anybody passing it along: whoever knows
it binds it for a while (`bound`), and every line written meanwhile has it. What is secret is blacked out at the last
moment, whatever wrote it: a library's error message may quote the address it could not reach.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TextIO
from urllib.parse import unquote, urlsplit

from store.settings import Settings

_bound: ContextVar[Mapping[str, object]] = ContextVar("mixwright_log_fields", default=MappingProxyType({}))
_QUIET = ("alembic", "httpcore", "httpx", "httpx2")
"""They say at INFO what nobody asked for."""
_SHORTEST_SECRET = 4
"""Shorter ones would black out half of every line."""


def first_line(error: BaseException) -> str:
    """What an error says, without what a library explains below it."""
    return str(error).strip().splitlines()[0]


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Every line logged inside, in this task or thread, carries ``fields``; one that is None is left out."""
    token = _bound.set({**_bound.get(), **{name: one for name, one in fields.items() if one is not None}})
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> Mapping[str, object]:
    """What is bound now."""
    return _bound.get()


def configure_logging(settings: Settings, stream: TextIO | None = None) -> None:
    """Send everything this process logs to ``stream`` (standard error), in the format the operator chose."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines(settings.log_format == "json", secrets_of(settings)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level.upper())
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """What must not be in a log: the token and the passwords of the addresses, as written and as meant."""
    kept = settings.data_directory / "token"
    made = kept.read_text(encoding="ascii").strip() if kept.is_file() else None
    passwords = [urlsplit(url).password for url in (settings.database_url or "", settings.broker_url)]
    found = {settings.token, made, *passwords, *(unquote(one) for one in passwords if one)}
    return tuple(
        sorted((one for one in found if one and len(one) >= _SHORTEST_SECRET), key=len, reverse=True)
    )


class Lines(logging.Formatter):
    """A record as a line for people, what is bound behind it and a traceback below, or as a JSON object; no secrets.

    The object is ``{"time", "level", "logger", "message", ...what is bound, "exception"}``.
    """

    def __init__(self, is_json: bool, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._is_json, self._secrets = is_json, secrets

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        traceback = [self.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
        if record.stack_info:
            traceback.append(record.stack_info)
        if self._is_json:
            document: dict[str, object] = {
                "time": _time(record),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
                **_bound.get(),
            }
            line = json.dumps(
                {**document, "exception": "\n".join(traceback)} if traceback else document, default=str
            )
        else:
            fields = "".join(f" {name}={value}" for name, value in _bound.get().items())
            first = f"{_time(record)} {record.levelname} {record.name} {record.getMessage()}{fields}"
            line = "\n".join((first, *traceback))
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
