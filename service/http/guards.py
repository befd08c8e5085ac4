"""What is refused before anything is read (length, host, address, headers that contradict each other), and the
headers that guard a browser."""

import re
from collections import Counter
from collections.abc import Collection
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import anyio
from cachetools import LRUCache
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy_models.text.data_roots import reading_below
from service.http.auth import COOKIE, MOST_ADDRESSES, bearer_token, client_address, network_of
from service.http.errors import problem_response
from service.http.limits import Limits
from service.processes.computation import Busy
from service.tokens import Principal, hash_of
from store.problems import Problem, TooManyRequests
from store.settings import Settings

BODY_SECONDS = 30.0
"""Of a body of a megabyte, so also of a slow line."""
MOST_BODIES = 64
"""As many of the longest are held at once, of all requests together."""


class BodyTooLarge(Problem):
    """The body is longer than the service reads."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(
            "body_too_large",
            f"The body is longer than {limit} bytes. Refer to files by path or pattern instead.",
        )


class BodyTooSlow(Problem):
    """The body does not come."""

    status = 408
    headers = MappingProxyType({"Connection": "close"})

    def __init__(self, seconds: float) -> None:
        super().__init__("body_too_slow", f"The body did not come within {seconds:g} s.")


class BodyLimit:
    """ASGI middleware that bounds bodies: the length of each, how long it may take, and what is held of all at once.

    Nothing of a body is read before the application asks for it, so whoever may not ask costs nothing; then it comes
    whole, in one message. `receive` raises `BodyTooLarge`, `BodyTooSlow` or `Busy`, which are answers. An announced
    length is refused at once.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self.limit, self.seconds = limit, BODY_SECONDS
        self.room = MOST_BODIES * limit
        """Bytes that bodies may take still."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self.limit:
            refusal = BodyTooLarge(self.limit)
            await problem_response(refusal.status, refusal.code, refusal.detail)(scope, receive, send)
            return
        body = _Body(self, receive)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self.room += len(body.content)


class _Body:
    """What is read of one request."""

    def __init__(self, bounds: BodyLimit, receive: Receive) -> None:
        self.content = bytearray()
        self._bounds, self._receive, self._is_asked = bounds, receive, False

    async def receive(self) -> Message:
        """The whole body in the first message, and then what else comes."""
        if self._is_asked:
            return await self._receive()
        self._is_asked = True
        with anyio.move_on_after(self._bounds.seconds) as reading:
            while True:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message  # the client went away
                self._take(message.get("body", b""))
                if not message.get("more_body", False):
                    break
        if reading.cancelled_caught:
            raise BodyTooSlow(self._bounds.seconds)
        return {"type": "http.request", "body": bytes(self.content), "more_body": False}

    def _take(self, part: bytes) -> None:
        if len(self.content) + len(part) > self._bounds.limit:
            raise BodyTooLarge(self._bounds.limit)
        if len(part) > self._bounds.room:
            raise Busy
        self._bounds.room -= len(part)
        self.content += part


_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)


_DECIDING = frozenset(
    (b"authorization", b"content-length", b"content-type", b"idempotency-key", b"origin", b"sec-fetch-site")
)


_UNKNOWN_HOST = (
    "The Host header is none of the names of this service; the operator sets MIXWRIGHT_ALLOWED_HOSTS."
)
_NUL = "The address or a header of the request holds a NUL byte."


class PlainHead:
    """ASGI middleware that answers 400 for a head that names no one service, or can be read in two ways.

    There is exactly one ``Host``, of the ``names``, with any port. A NUL byte in path, query or headers counts
    encoded once or not at all: no name has one, and PostgreSQL stores none. Of two headers of one name, where the
    name decides something, one reader takes the first and another the last.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower().strip("[]") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if not self._is_allowed(scope):
            return problem_response(400, "unknown_host", _UNKNOWN_HOST)
        if _holds_nul(scope):
            return problem_response(400, "bad_address", _NUL)
        if twice := _given_twice(scope):
            detail = f"The header {twice!r} is given twice; send it once."
            return problem_response(400, "repeated_header", detail, field=twice)
        return None

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        return match is not None and match.group(1).lower().strip("[]") in self._names


def _holds_nul(scope: Scope) -> bool:
    return (
        "\0" in scope["path"]
        or b"\0" in unquote_to_bytes(scope["query_string"])
        or any(b"\0" in value for _, value in scope["headers"])
    )


def _given_twice(scope: Scope) -> str | None:
    counts = Counter(name for name, _ in scope["headers"] if name in _DECIDING)
    return next((name.decode() for name, number in counts.items() if number > 1), None)


_CHECKS = ("/healthz", "/readyz")
"""Of an orchestrator; they cost nothing, and are answered whoever else has the address."""


class Admission:
    """ASGI middleware: a request is counted before anything is done for it, of a user who is known, else by address.

    Known is who brings a token or a cookie that was good at the address before, whoever else is there. Over the limit
    a request is refused before its head is looked at further, a database is asked or a page is made, and refusals are
    sent one after another: who asks on and on waits for them, and nobody else does.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._known: LRUCache[tuple[str, str], Principal] = LRUCache(MOST_ADDRESSES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["path"] in _CHECKS:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        address = network_of(client_address(request))
        brought = address, hash_of(bearer_token(request) or request.cookies.get(COOKIE, ""))
        user = self._known.get(brought)
        try:
            self._limits.admit(user or address)
        except TooManyRequests as refusal:
            await anyio.sleep(self._limits.pause(user or address))
            answer = problem_response(refusal.status, refusal.code, refusal.detail, refusal.headers)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)
        user = getattr(request.state, "principal", user)  # where nobody has looked, as it was
        if user is None:
            self._known.pop(brought, None)
        else:
            self._known[brought] = user


class DataRootsOnly:
    """ASGI middleware: what answers a request opens no file but those below the data roots and the service's own."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._roots, self._own = settings.roots, (settings.artifacts,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the threads that answer it inherit the context."""
        with reading_below(self._roots, self._own):
            await self._app(scope, receive, send)


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # A first visit may have a code in its address; no other site may learn it.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Permitted-Cross-Domain-Policies": "none",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PRIVATE = "no-store"
"""Answers are for who asked; static files alone, whose addresses change with their content, may be kept."""
STRICT_TRANSPORT_SECURITY = "max-age=31536000"


class SecurityHeaders:
    """ASGI middleware that adds HEADERS where the answer does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer's headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", PRIVATE)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT_SECURITY)
            await send(message)

        await self._app(scope, receive, complete)
