"""What is noted of every request: its id, how it ended, how long it took, and who wrote what.

``X-Request-ID`` is one name for a request in the answer, in its problem document and in every log line about it.
What nobody foresaw is logged here, with the request's id, and answered as a problem document.

An audit line, JSON on standard error, is written for every request that may change something:
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
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.auth import SAFE_METHODS
from service.http.errors import problem_response
from service.observability.health import Pulse
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


HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What is taken from a client: nothing that could start a new line or field in a log."""
SLOW_SECONDS = 1.0
_QUIET = ("/healthz", "/readyz", "/metrics")

log = logging.getLogger("mixwright.web")


def request_id(given: str | None) -> str:
    """The client's own id when it is sane, else a new one: 32 hexadecimal digits."""
    return given if given is not None and _SANE.fullmatch(given) else secrets.token_hex(16)


@dataclass(slots=True)
class _Answer:
    """What is known of a request's answer: status 0 until it begins, and the address of what was created."""

    status: int = 0
    made: str | None = None


class RequestLog:
    """ASGI middleware: names the request, counts and logs how it ended, answers 500 for what nobody foresaw.

    One line a request: at INFO for writes and what failed or took over a second, else at DEBUG, for a page that
    looks again every second would fill the log. The path is the route's template, so no query string is logged.
    The histogram has seconds by method, route and status; one that its client left has status 0.
    """

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, pulse: Pulse) -> None:
        self._app = app
        self._pulse = pulse
        self._seconds = Histogram(
            "mixwright_http_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under its name."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id(Headers(scope=scope).get(HEADER))
        trace.get_current_span().set_attribute("mixwright.request_id", name)
        answer, started = _Answer(), time.perf_counter()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = name
                answer.status = message["status"]
                end()
                answer.made = headers.get("location") if answer.status in (201, 202) else None
            await send(message)

        end = self._pulse.begin(scope["path"])
        with bound(request_id=name):
            try:
                await self._app(scope, receive, named)
            except Exception as error:
                log.exception("%s %s", scope["method"], route_of(scope))
                trace.get_current_span().record_exception(error)
                if answer.status == 0:
                    detail = "This is a fault of the service, and is in its log under the request's id."
                    await problem_response(500, "internal_error", detail)(scope, receive, named)
            finally:
                end()
                self._note_end(scope, answer, time.perf_counter() - started)

    def _note_end(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        method, route, status = scope["method"], route_of(scope), answer.status
        self._seconds.labels(method if method in _METHODS else "other", route, str(status)).observe(seconds)
        if method not in SAFE_METHODS:
            audit_log.info(json.dumps(_audit_line(scope, answer)))
        noted = method not in ("GET", "HEAD") or status >= 500 or seconds > SLOW_SECONDS
        level = logging.INFO if noted and route not in _QUIET else logging.DEBUG
        log.log(level, "%s %s %d in %.1f ms", method, route, status, 1000 * seconds)


LONGEST_PATH = 512
audit_log = logging.getLogger("mixwright.audit")


def install_audit_log() -> None:
    """Write the lines to standard error as they are, whatever the other logs look like; twice does no harm."""
    if not audit_log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        audit_log.addHandler(handler)
    audit_log.propagate = False
    audit_log.setLevel(logging.INFO)


def _audit_line(scope: Scope, answer: _Answer) -> dict[str, object]:
    principal = scope.get("state", {}).get("principal")
    client = scope.get("client")
    return {
        "audit": "write",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "user": principal.name if principal is not None else None,
        "method": scope["method"],
        "path": scope["path"][:LONGEST_PATH],
        "status": answer.status or 500,
        "made": answer.made,
        "client": client[0] if client else None,
    }
