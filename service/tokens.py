"""Who may use the service: access tokens with scopes, and browsers' sign-ins. Free of FastAPI.

A secret has 256 random bits and is stored only as a hash. A plain SHA-256 of it can neither be searched nor looked
up; the slow hashes that passwords need would only slow every request down.

A sign-in is a random cookie, of which the store keeps a keyed hash. The key is the operator's token, so a copy of the
store opens no session, and a new operator's token ends them all. A session made with a user's token remembers that
secret's hash and lives no longer than it does.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import delete, or_, select
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


LADDER = tuple(Scope)
ALL_SCOPES = frozenset(LADDER)


def granted(named: Iterable[str]) -> frozenset[Scope]:
    """The named scopes with what they include; raises ValueError for a name nobody knows."""
    highest = max((LADDER.index(Scope(name)) for name in named), default=-1)
    return frozenset(LADDER[: highest + 1])


OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who it is and what that one may do; ``token_id`` and ``secret_hash`` are None for the operator."""

    name: str
    scopes: frozenset[Scope]
    token_id: str | None = None
    secret_hash: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it is the operator's own token, which no quota holds for."""
        return self.token_id is None


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


class TokenError(ValueError):
    """What was asked of a token cannot be done; the message says why."""


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

    A web process believes in it for `service.http.auth.TRUST_SECONDS` more at most.
    """
    row = _named(session, name)
    if row.revoked_at is None:
        row.revoked_at = now_of(session)


def list_tokens(session: Session) -> list[AccessToken]:
    """Every token, oldest first, revoked ones too."""
    return list(session.scalars(select(AccessToken).order_by(AccessToken.id)))


def find_by_hash(
    session: Session, secret_hash: str, token_id: str | None = None
) -> tuple[Principal, bool] | None:
    """Whose valid token has a secret of this hash, now or in its grace; of ``token_id`` if that is given.

    And whether its last use is to be noted again.
    """
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
    return Principal(row.name, granted(row.scopes), row.id, secret_hash), is_old


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


CODE_SECONDS = 600
"""How long a link that signs the operator's browser in is good, once. Addresses end up in histories and logs, so it
carries a code instead of the token; the store keeps its keyed hash as it does a cookie's."""


def make_code(session: Session, key: str) -> str:
    """A new code; ``key`` is the operator's token."""
    code = secrets.token_urlsafe(SECRET_BYTES)
    expires_at = cast(Any, database_now() + CODE_SECONDS)
    session.add(DashboardSession(cookie_hash=_code_hash(key, code), expires_at=expires_at))
    return code


def use_code(session: Session, key: str, code: str) -> bool:
    """Whether the code was good; from now on it is not."""
    query = delete(DashboardSession).where(
        DashboardSession.cookie_hash == _code_hash(key, code), DashboardSession.expires_at > database_now()
    )
    return cast(Any, session.execute(query)).rowcount == 1


def _code_hash(key: str, code: str) -> str:
    return keyed_hash(key, f"code {code}")  # no cookie has a space
