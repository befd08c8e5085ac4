"""Who may use the service: access tokens with scopes, browsers' sign-ins, and who sent a request.

A secret has 256 random bits and is stored only as a hash. A plain SHA-256 of it can neither be searched nor looked
up; the slow hashes that passwords need would only slow every request down.

A sign-in is a random cookie, of which the store keeps a keyed hash. The key is the operator's token, so a copy of the
store opens no session, and a new operator's token ends them all. A session made with a user's token remembers that
secret's hash and lives no longer than it does.

Wrong tokens are counted by client address, in the memory of the web process: a bucket of some
(``MIXWRIGHT_WRONG_TOKENS``) an address, one more every `REFILL_SECONDS`. While it is empty nothing from the address
is compared at all, except tokens that were good there before: who shares an address with a guesser (a proxy, an
office) goes on working, and the guesser learns nothing.
"""

import hashlib
import hmac
import ipaddress
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from cachetools import LRUCache, TLRUCache
from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from store.engine import Database
from store.problems import TooManyAttempts
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

    A web process believes in it for `TRUST_SECONDS` more at most.
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


USUAL_FAILURES = 10
REFILL_SECONDS = 30.0
MOST_ADDRESSES = 10_000
"""Addresses and good tokens remembered; the ones not seen for longest are forgotten."""
TRUST_SECONDS = 2.0
"""How long what was looked up about a token is believed, so that a client which polls costs no query each time: a
token that ends (revoked, rotated without grace, expired) works so much longer at most."""
MOST_LOOKUPS = 10_000


class FailedAttempts:
    """Who has sent wrong tokens lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = USUAL_FAILURES) -> None:
        self._clock, self._most = clock, most
        self._guard = threading.Lock()
        # address -> (level, when)
        self._failures: LRUCache[str, tuple[float, float]] = LRUCache(MOST_ADDRESSES)
        self._good: LRUCache[tuple[str, str], bool] = LRUCache(MOST_ADDRESSES)

    def wait_seconds(self, address: str, secret: str) -> int:
        """Whole seconds until the address may try this secret; 0 is now."""
        network = _network(address)
        with self._guard:
            if self._good.get((network, hash_of(secret))):
                return 0
            over = self._level(network) - (self._most - 1)
            return max(0, math.ceil(over * REFILL_SECONDS))

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        network = _network(address)
        with self._guard:
            self._failures[network] = (self._level(network) + 1.0, self._clock())

    def succeeded(self, address: str, secret: str) -> None:
        """Remember a good token of the address."""
        key = (_network(address), hash_of(secret))
        with self._guard:
            self._good[key] = True

    def _level(self, network: str) -> float:
        level, when = self._failures.get(network, (0.0, 0.0))
        return max(0.0, level - (self._clock() - when) / REFILL_SECONDS)


def _network(address: str) -> str:
    """IPv6 clients own whole networks of 2^64 addresses, which count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


_log = logging.getLogger("mixwright.tokens")


class Authenticator:
    """Knows the operator's token and looks the others up. Blocking but for `recent`: it asks the database."""

    def __init__(
        self,
        operator_token: str,
        database: Database,
        clock: Callable[[], float] = time.monotonic,
        wrong_tokens: int = USUAL_FAILURES,
    ) -> None:
        self._operator_token = operator_token
        self._operator_hash = hash_of(operator_token)
        self._database = database
        self._attempts = FailedAttempts(most=wrong_tokens)
        self._clock, self._guard = clock, threading.Lock()
        # (address, secret's hash) -> (who, when the store was asked): an answer is as old as its question.
        self._recent: TLRUCache[tuple[str, str], tuple[Principal, float]] = TLRUCache(
            MOST_LOOKUPS, lambda _key, answer, _now: answer[1] + TRUST_SECONDS, clock
        )
        self._writer = ThreadPoolExecutor(1, "last-uses")

    def recent(self, secret: str, address: str) -> Principal | None:
        """Whose token it is, if `by_token` answered that for this address within `TRUST_SECONDS`; asks nobody."""
        key = (address, hash_of(secret))
        with self._guard:
            answer = self._recent.get(key)
        return None if answer is None else answer[0]

    def by_token(self, secret: str, address: str) -> Principal | None:
        """Whose token it is. Raises TooManyAttempts while ``address`` has sent too many wrong ones."""
        wait = self._attempts.wait_seconds(address, secret)
        if wait:
            raise TooManyAttempts(wait)
        secret_hash = hash_of(secret)
        key, asked_at = (address, secret_hash), self._clock()
        principal = self._look_up(secret_hash)
        if principal is None:
            self._attempts.failed(address)
        else:
            self._attempts.succeeded(address, secret)
            with self._guard:
                self._recent[key] = (principal, asked_at)
        return principal

    def by_code(self, code: str, address: str) -> Principal | None:
        """The operator, by the code of a link; it is used up. Raises TooManyAttempts as `by_token` does."""
        wait = self._attempts.wait_seconds(address, code)
        if wait:
            raise TooManyAttempts(wait)
        with self._database.write() as session:
            is_good = use_code(session, self._operator_token, code)
        if not is_good:
            self._attempts.failed(address)
        return Principal(OPERATOR, ALL_SCOPES) if is_good else None

    def by_cookie(self, cookie: str) -> Principal | None:
        """Whose browser it is. A cookie that has run out is no attempt at guessing one."""
        if not cookie:
            return None
        live = select(DashboardSession).where(
            DashboardSession.cookie_hash == keyed_hash(self._operator_token, cookie),
            DashboardSession.expires_at > database_now(),
        )
        with self._database.read() as session:
            row = session.scalars(live).first()
        if row is None:
            return None
        if row.token_id is None:
            return Principal(OPERATOR, ALL_SCOPES)
        return self._look_up(row.secret_hash or "", row.token_id)

    def sign_in(self, principal: Principal) -> str:
        """A new session's cookie."""
        cookie = secrets.token_urlsafe(SECRET_BYTES)
        opened = DashboardSession(
            cookie_hash=keyed_hash(self._operator_token, cookie),
            token_id=principal.token_id,
            secret_hash=principal.secret_hash,
            expires_at=cast(Any, database_now() + SESSION_SECONDS),
        )
        with self._database.write() as session:
            session.execute(delete(DashboardSession).where(DashboardSession.expires_at <= database_now()))
            session.add(opened)
        return cookie

    def sign_out(self, cookie: str) -> None:
        """End the cookie's session: a copy of it is worth nothing from now on."""
        its = DashboardSession.cookie_hash == keyed_hash(self._operator_token, cookie)
        with self._database.write() as session:
            session.execute(delete(DashboardSession).where(its))

    def close(self) -> None:
        """Write down what is not written yet."""
        self._writer.shutdown()

    def _look_up(self, secret_hash: str, token_id: str | None = None) -> Principal | None:
        if token_id is None and same(secret_hash, self._operator_hash):
            return Principal(OPERATOR, ALL_SCOPES)
        with self._database.read() as session:
            principal, last_use_is_old = find_by_hash(session, secret_hash, token_id) or (None, False)
        if principal is not None and last_use_is_old:
            self._writer.submit(self._note_use, principal.token_id)  # no request waits for a writer's turn
        return principal

    def _note_use(self, token_id: str | None) -> None:
        token = update(AccessToken).where(AccessToken.id == token_id)
        try:
            with self._database.write() as session:
                session.execute(token.values(last_used_at=database_now()))
        except DBAPIError:
            # It says when a token was used, no more: the next request with it tries again.
            _log.warning("the last use of a token could not be written down", exc_info=True)
