"""The operator's token: of the environment, or in a file its owner alone can read, made on first start.

Free of FastAPI: the command line reads it too.
"""

import os
import secrets
from pathlib import Path

from store.settings import Settings


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
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
