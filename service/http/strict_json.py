"""Bodies that two readers would read differently are refused before anything reads them.

JSON leaves open what a member named twice means, and Python's reader keeps the last: a weight given twice would be
taken for the other one. It also reads nestings that no request has. NaN and Infinity are refused where they stand, by
the request's model, which knows what they were meant for.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.errors import problem_response
from service.http.guards import replayed
from store.problems import Invalid

DEEPEST = 32
"""Levels of nesting; requests need five."""
_NO_TEXT = re.compile(rb"\\u(0000|[dD][89a-fA-F])")
INLINE_BYTES = 2**16
"""Longer bodies are read in a thread, so that the others do not wait."""


class StrictJson:
    """ASGI middleware for JSON bodies; wants the body in one message, so `BodyLimit` comes before it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 422 naming the member."""
        if scope["type"] != "http" or not _says_json(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        body = message.get("body", b"")
        try:
            if len(body) > INLINE_BYTES:
                await run_in_threadpool(check, body)
            else:
                check(body)
        except Invalid as error:
            answer = problem_response(error.status, error.code, error.detail, field=error.field)
            await answer(scope, receive, send)
            return
        await self._app(scope, replayed(message, receive), send)


def check(body: bytes) -> None:
    """Raise Invalid for what is read in more than one way; what is no JSON at all is left to the endpoint."""
    try:
        document = json.loads(body, object_pairs_hook=_object)
        _check_depth(document)
        if _NO_TEXT.search(body):
            _check_text(document)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        if "digits" in str(error):  # Python's own limit of 4300 digits a number
            raise Invalid("bad_number", "The body holds a number of thousands of digits.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        shown = name[:200].encode("utf-8", "backslashreplace").decode()
        raise Invalid("duplicate_member", f"The member {shown!r} is given twice.", shown)
    return found


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise _too_deep()


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_text(value: Any, field: str = "") -> None:
    """Raise Invalid naming the member whose text or name has a NUL or half a surrogate pair: no store keeps them."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= one <= "\udfff" for one in value):
            raise Invalid("bad_text", f"{value[:200]!a} holds a NUL or half a surrogate pair.", field or None)
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, field)
            _check_text(inner, f"{field}.{name[:200]}".lstrip("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_text(inner, f"{field}[{index}]")


def _too_deep() -> Invalid:
    return Invalid("too_deep", f"The body is nested over {DEEPEST} levels deep.")


def _says_json(scope: Scope) -> bool:
    given = dict(scope["headers"]).get(b"content-type", b"").lower()
    return b"json" in given
