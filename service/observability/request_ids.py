"""``X-Request-ID``: one name for a request in the answer, in its problem document and in every log line about it.

This is the outermost part of the application that knows about errors: what nobody foresaw is logged here, with the
request's id, and answered as a problem document.
"""

import logging
import re
import secrets
import time

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.errors import problem_response
from service.observability.request_metrics import route_of
from store.logs import bound

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
