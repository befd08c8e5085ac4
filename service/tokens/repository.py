"""Access tokens in the store: made, found by their secret, renewed and revoked."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from service.tokens.recent_lookups import forget_when_committed
from service.tokens.scopes import Scope, granted
from service.tokens.secrets import hash_of, new_secret, same
from store.clock import database_now
from store.tables import AccessToken

LAST_USED_SECONDS = 60.0
"""A token's last use is noted at most so often: a client that polls is not to write at every request."""
ROTATION_GRACE_SECONDS = 24 * 3600.0
"""How long the old secret still works after a rotation, unless another time is asked for."""


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
    now = _now(session)
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
    now = _now(session)
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
        row.revoked_at = _now(session)


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
    now = _now(session)
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


def _now(session: Session) -> float:
    return float(session.scalar(select(database_now())) or 0.0)
