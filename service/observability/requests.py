"""What is noted of every request: its id, how it ended, how long it took, and who wrote what.

``X-Request-ID`` is one name for a request in the answer, in its problem document and in every log line about it.
`RequestIds` is the outermost part that knows about errors: what nobody foresaw is logged here, with
the request's id, and answered as a problem document.

`Audit` writes one JSON line on standard error for every request that may change something:
``{"audit": "write", "time", "user", "method", "path", "status", "made", "client"}``; ``user`` is null where nobody
was recognised, ``made`` is the address of what was created. Query strings, bodies and headers are left out: that is
where secrets travel.
"""

import json
import logging
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.auth import SAFE_METHODS
from service.http.errors import problem_response
from store.logs import bound

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

UNMATCHED = "(none)"
"""The route of a request that met none: its path is the client's own words, and never a label."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def request_telemetry(provider: "TracerProvider | None") -> TelemetryConfig:
    """What FastAPI is told about its own spans: only of the API, whose addresses carry no token."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": _is_no_api,
    }


def _is_no_api(scope: Scope) -> bool:
    # A browser's first visit has the token in its query string, and a span has the query string.
    return not scope.get("path", "").startswith("/v1/")


def route_of(scope: Scope) -> str:
    """Template of the route a request met, such as ``/v1/runs/{run_id}``."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return str(path) if path else UNMATCHED


class RequestMetrics:
    """ASGI middleware that counts every answer in a histogram of seconds by method, route and status."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "mixwright_http_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count its answer; one that its client left has status 0."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            seconds = time.perf_counter() - started
            self._seconds.labels(method, route_of(scope), str(status)).observe(seconds)


HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What is taken from a client: nothing that could start a new line or field in a log."""
SLOW_SECONDS = 1.0
_QUIET = ("/healthz", "/readyz", "/metrics")

_log = logging.getLogger("mixwright.web")


def request_id(given: str | None) -> str:
    """The client's own id when it is sane, else a new one: 32 hexadecimal digits."""
    return given if given is not None and _SANE.fullmatch(given) else secrets.token_hex(16)


class RequestIds:
    """ASGI middleware: names the request, logs how it ended, and answers 500 for what nobody foresaw.

    One line a request: at INFO for writes and what failed or took over a second, else at DEBUG, for a page that
    looks again every second would fill the log. The path is the route's template, so no query string is logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id(Headers(scope=scope).get(HEADER))
        trace.get_current_span().set_attribute("mixwright.request_id", name)
        status = 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        started = time.perf_counter()
        with bound(request_id=name):
            try:
                await self._app(scope, receive, named)
            except Exception as error:
                _log.exception("%s %s", scope["method"], route_of(scope))
                trace.get_current_span().record_exception(error)
                if status == 0:
                    detail = "This is a fault of the service, and is in its log under the request's id."
                    await problem_response(500, "internal_error", detail)(scope, receive, named)
            _log_end(scope, status, time.perf_counter() - started)


def _log_end(scope: Scope, status: int, seconds: float) -> None:
    route = route_of(scope)
    noted = scope["method"] not in ("GET", "HEAD") or status >= 500 or seconds > SLOW_SECONDS
    level = logging.INFO if noted and route not in _QUIET else logging.DEBUG
    _log.log(level, "%s %s %d in %.1f ms", scope["method"], route, status, 1000 * seconds)


LONGEST_PATH = 512
log = logging.getLogger("mixwright.audit")


def install_audit_log() -> None:
    """Write the lines to standard error as they are, whatever the other logs look like; twice does no harm."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)


class Audit:
    """ASGI middleware that writes the line when the answer has begun, or has failed to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how it ended."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        answer: dict[str, object] = {"status": 500, "made": None}

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                if message["status"] in (201, 202):
                    made = dict(message.get("headers", ())).get(b"location")
                    answer["made"] = made.decode("latin-1") if made else None
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            log.info(json.dumps(_line(scope, answer)))


def _line(scope: Scope, answer: dict[str, object]) -> dict[str, object]:
    principal = scope.get("state", {}).get("principal")
    client = scope.get("client")
    return {
        "audit": "write",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": principal.name if principal is not None else None,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        **answer,
        "client": client[0] if client else None,
    }
