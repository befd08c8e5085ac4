"""Addresses and headers with NUL bytes are refused: no name has one, and PostgreSQL stores none."""

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.errors import problem_response


class PlainAddress:
    """ASGI middleware that answers 400 for a NUL byte, encoded once or not at all, in path, query or headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and _holds_nul(scope):
            detail = "The address or a header of the request holds a NUL byte."
            await problem_response(400, "bad_address", detail)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _holds_nul(scope: Scope) -> bool:
    return (
        "\0" in scope["path"]
        or b"\0" in unquote_to_bytes(scope["query_string"])
        or any(b"\0" in value for _, value in scope["headers"])
    )
