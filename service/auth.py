"""Who may speak to the service: one bearer token, made on first start and readable by its owner only."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fastapi import Request

from service.errors import Forbidden, Unauthorized
from service.settings import Settings

COOKIE = "mixwright_session"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class UnprotectedBind(RuntimeError):
    """The service was asked to listen beyond this machine before anybody gave it a token."""


def token_file(settings: Settings) -> Path:
    """Where a token made by the service itself is kept."""
    return settings.data_directory / "token"


def load_token(settings: Settings) -> str:
    """The operator's token, or the one in the data directory, made now (mode 0600) when there is none.

    Raises UnprotectedBind for an address other machines can reach when no token exists yet: a token nobody
    chose and nobody has seen protects nothing that was meant to be shared.
    """
    if settings.token:
        return settings.token
    path = token_file(settings)
    if not path.exists():
        if not settings.is_loopback:
            raise UnprotectedBind(
                f"refusing to listen on {settings.host} without a token: set MIXWRIGHT_TOKEN "
                "(at least 16 characters), or bind 127.0.0.1"
            )
        _create_token(path)
    return path.read_text(encoding="ascii").strip()


def _create_token(path: Path) -> None:
    # Written whole beside its place and linked there: of two processes that start at once the first wins,
    # and no reader ever sees half a token.
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".token-{os.getpid()}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def session_cookie(token: str) -> str:
    """What a browser keeps instead of the token: derived from it, and of no use as a bearer token."""
    return hmac.new(token.encode(), b"mixwright dashboard session", hashlib.sha256).hexdigest()


def is_authorized(request: Request, token: str) -> bool:
    """Whether the request carries the bearer token, or a browser's session for reading."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return hmac.compare_digest(given.strip().encode(), token.encode())
    cookie = request.cookies.get(COOKIE, "")
    # A cookie is sent by the browser whoever asks it to, so it only ever reads.
    return request.method in _SAFE_METHODS and hmac.compare_digest(
        cookie.encode(), session_cookie(token).encode()
    )


def require_token(request: Request) -> None:
    """FastAPI dependency: raises Unauthorized without a valid token, Forbidden for another site's write."""
    if not is_authorized(request, request.app.state.token):
        raise Unauthorized("unauthorized", "Send the token as 'Authorization: Bearer <token>'.")
    origin = request.headers.get("origin")
    if request.method not in _SAFE_METHODS and origin and origin != str(request.base_url).rstrip("/"):
        raise Forbidden("cross_origin", f"Writes from the origin {origin!r} are not accepted.")
