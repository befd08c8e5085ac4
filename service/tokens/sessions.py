"""A browser's sign-in: a random cookie, of which the store keeps a keyed hash.

The key is the operator's token, so a copy of the store opens no session, and a new operator's token ends them all. A
session made with a user's token remembers that secret's hash and lives no longer than it does.
"""

import secrets
from typing import Any, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from service.tokens.secrets import SECRET_BYTES, keyed_hash
from store.clock import database_now
from store.tables import DashboardSession

SESSION_SECONDS = 7 * 24 * 3600
"""How long a browser stays signed in."""


def open_session(session: Session, key: str, token_id: str | None, secret_hash: str | None) -> str:
    """Sign a browser in by a user's token, or by the operator's (both None); answers the cookie's value."""
    session.execute(delete(DashboardSession).where(DashboardSession.expires_at <= database_now()))
    cookie = secrets.token_urlsafe(SECRET_BYTES)
    session.add(
        DashboardSession(
            cookie_hash=keyed_hash(key, cookie),
            token_id=token_id,
            secret_hash=secret_hash,
            expires_at=cast(Any, database_now() + SESSION_SECONDS),
        )
    )
    return cookie


def session_of(session: Session, key: str, cookie: str) -> DashboardSession | None:
    """The live session of a cookie."""
    return session.scalars(
        select(DashboardSession).where(
            DashboardSession.cookie_hash == keyed_hash(key, cookie),
            DashboardSession.expires_at > database_now(),
        )
    ).first()


def close_session(session: Session, key: str, cookie: str) -> None:
    """Sign the browser out: a copy of its cookie is worth nothing from now on."""
    session.execute(delete(DashboardSession).where(DashboardSession.cookie_hash == keyed_hash(key, cookie)))
