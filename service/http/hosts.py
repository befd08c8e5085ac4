"""Names a request may call this service by: a page elsewhere cannot rebind its own name to it."""

import re
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.errors import problem_response

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)


class AllowedHosts:
    """ASGI middleware that answers 400 unless there is exactly one ``Host``, of the ``names``, with any port."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower().strip("[]") for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not self._is_allowed(scope):
            answer = problem_response(
                400,
                "unknown_host",
                "The Host header is none of the names of this service; the operator sets MIXWRIGHT_ALLOWED_HOSTS.",
            )
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        return match is not None and match.group(1).lower().strip("[]") in self._names
