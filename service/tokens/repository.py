"""Access tokens and browsers' sign-ins in the store: made, found by their secret, renewed and ended.

A secret has 256 random bits and is stored only as a hash. A plain SHA-256 of it can neither be searched nor looked
up; the slow hashes that passwords need would only slow every request down.

A sign-in is a random cookie, of which the store keeps a keyed hash. The key is the operator's token, so a copy of the
store opens no session, and a new operator's token ends them all. A session made with a user's token remembers that
secret's hash and lives no longer than it does.
"""

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import delete, event, or_, select, update
from sqlalchemy.orm import Session

from store.tables import AccessToken, DashboardSession, database_now


class Scope(StrEnum):
    """One step of the ladder, lowest first."""

    READ = "read"
    """Look at everything: resources, runs, metrics, the dashboard."""
    WRITE = "write"
    """Make and change domain sets, mixtures and optimizations, which train proxy models."""
    LAUNCH = "launch"
    """Start, cancel and retry full training runs."""


LADDER = (Scope.READ, Scope.WRITE, Scope.LAUNCH)
ALL_SCOPES = frozenset(LADDER)


def granted(named: Iterable[str]) -> frozenset[Scope]:
    """The named scopes with what they include; raises ValueError for a name nobody knows."""
    highest = max((LADDER.index(Scope(name)) for name in named), default=-1)
    return frozenset(LADDER[: highest + 1])


PREFIX = "mw_"
"""Lets scanners for leaked secrets recognise one."""
SECRET_BYTES = 32


def new_secret() -> str:
    """A new token's secret; shown once, kept nowhere."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    """SHA-256 of a secret, 64 hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def keyed_hash(key: str, secret: str) -> str:
    """HMAC-SHA-256 of a secret: worth nothing to whoever knows only the store, and void with another key."""
    return hmac.new(key.encode(), secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    """Whether two hashes are equal, in time that tells nothing about where they differ."""
    return hmac.compare_digest(left.encode(), right.encode())


LAST_USED_SECONDS = 60.0
"""A token's last use is noted at most so often: a client that polls is not to write at every request."""
ROTATION_GRACE_SECONDS = 24 * 3600.0
"""How long the old secret still works after a rotation, unless another time is asked for."""


_changes = itertools.count(1)
_last_change = 0


def last_change() -> int:
    """How many changes this process has made to tokens: another number than before makes a look-up an old one."""
    return _last_change


def forget_when_committed(session: Session) -> None:
    """Make every look-up of this process a new one once ``session`` has committed what it changes about tokens."""
    event.listen(session, "after_commit", _forget, once=True)


def _forget(_session: Session) -> None:
    global _last_change
    _last_change = next(_changes)


class TokenError(ValueError):
    """What was asked of a token cannot be done; the message says why."""


@dataclass(frozen=True, slots=True)
class FoundToken:
    """A valid token, without its secret."""

    token_id: str
    name: str
    scopes: frozenset[Scope]
    last_used_is_old: bool


def create_token(
    session: Session, name: str, scopes: Collection[Scope], valid_seconds: float | None = None
) -> str:
    """Store a token; answers its secret, which cannot be had again. Raises TokenError for a name in use.

    The name of a revoked token stays taken: a line of the audit log must mean one token.
    """
    if session.scalar(select(AccessToken.id).where(AccessToken.name == name)) is not None:
        raise TokenError(f"there is a token {name!r} already, perhaps a revoked one: choose another name")
    now = now_of(session)
    secret = new_secret()
    session.add(
        AccessToken(
            name=name,
            scopes=sorted(scope.value for scope in granted(scopes)),
            secret_hash=hash_of(secret),
            created_at=now,
            expires_at=None if valid_seconds is None else now + valid_seconds,
        )
    )
    return secret


def rotate_token(session: Session, name: str, grace_seconds: float = ROTATION_GRACE_SECONDS) -> str:
    """Give a token a new secret and answer it; the old one works for ``grace_seconds`` more.

    A second rotation ends the grace of the first. Raises TokenError for a token that is not valid.
    """
    row = _named(session, name)
    forget_when_committed(session)
    now = now_of(session)
    if row.revoked_at is not None:
        raise TokenError(f"the token {name!r} was revoked: create another")
    if row.expires_at is not None and row.expires_at <= now:
        raise TokenError(f"the token {name!r} has expired: create another")
    secret = new_secret()
    row.previous_hash, row.previous_until = row.secret_hash, now + grace_seconds
    row.secret_hash, row.rotated_at = hash_of(secret), now
    return secret


def revoke_token(session: Session, name: str) -> None:
    """End a token, both its secrets and the browsers it signed in; twice does no harm.

    At once in this process; another one believes in the token for `TRUST_SECONDS` more at most.
    """
    row = _named(session, name)
    forget_when_committed(session)
    if row.revoked_at is None:
        row.revoked_at = now_of(session)


def list_tokens(session: Session) -> list[AccessToken]:
    """Every token, oldest first, revoked ones too."""
    return list(session.scalars(select(AccessToken).order_by(AccessToken.id)))


def find_by_hash(session: Session, secret_hash: str, token_id: str | None = None) -> FoundToken | None:
    """The valid token that has a secret of this hash, now or in its grace; of ``token_id`` if that is given."""
    query = select(AccessToken).where(
        or_(AccessToken.secret_hash == secret_hash, AccessToken.previous_hash == secret_hash)
    )
    if token_id is not None:
        query = query.where(AccessToken.id == token_id)
    row = session.scalars(query).first()
    if row is None:
        return None
    now = now_of(session)
    in_grace = row.previous_until is not None and now < row.previous_until
    is_current = same(row.secret_hash, secret_hash)
    is_previous = in_grace and same(row.previous_hash or "", secret_hash)
    is_over = row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now)
    if is_over or not (is_current or is_previous):
        return None
    is_old = row.last_used_at is None or row.last_used_at < now - LAST_USED_SECONDS
    return FoundToken(row.id, row.name, granted(row.scopes), is_old)


def note_uses(session: Session, token_ids: Collection[str]) -> None:
    """Write down that the tokens were used now."""
    query = update(AccessToken).where(AccessToken.id.in_(token_ids))
    session.execute(query.values(last_used_at=database_now()))


def _named(session: Session, name: str) -> AccessToken:
    row = session.scalars(select(AccessToken).where(AccessToken.name == name).with_for_update()).first()
    if row is None:
        raise TokenError(f"there is no token {name!r}; `mixwright tokens list` shows those there are")
    return row


def now_of(session: Session) -> float:
    """The database's clock, by which tokens run out."""
    return float(session.scalar(select(database_now())) or 0.0)


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
