"""One JSON line on standard error for every request that may change something: who did what, and how it ended.

``{"audit": "write", "time", "user", "method", "path", "status", "made", "client"}``; ``user`` is null where nobody
was recognised, ``made`` is the address of what was created. Query strings, bodies and headers are left out: that is
where secrets travel.
"""

import json
import logging
import sys
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.same_origin import SAFE_METHODS

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
