"""Who may speak to the service: the operator's token, made on first start, and the tokens of users.

The operator's is in the environment or in a file its owner alone can read, and may do everything. `service.tokens`
has the others; `require_token` is what every route of the API asks before it reads a body.

A write by cookie must come from one of this service's own pages. Browsers set ``Sec-Fetch-Site`` and ``Origin``
themselves; no page forges them. Programs that are no browsers send neither, and nobody can make them send a cookie.

Wrong tokens are counted by client address, in the memory of the web process: a bucket of some
(``MIXWRIGHT_WRONG_TOKENS``) an address, one more every `REFILL_SECONDS`. While it is empty nothing from the address
is compared at all, except tokens that were good there before: who shares an address with a guesser (a proxy, an
office) goes on working, and the guesser learns nothing.
"""

import ipaddress
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast
from urllib.parse import urlsplit

from cachetools import LRUCache, TLRUCache
from fastapi import Request
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool

from service.tokens import (
    ALL_SCOPES,
    OPERATOR,
    SECRET_BYTES,
    SESSION_SECONDS,
    Principal,
    Scope,
    find_by_hash,
    hash_of,
    keyed_hash,
    same,
    use_code,
)
from store.engine import Database
from store.problems import Forbidden, TooManyAttempts, Unauthorized
from store.tables import AccessToken, DashboardSession, database_now

COOKIE = "mixwright_session"


def principal_of(request: Request) -> Principal | None:
    """Who sent the request, by bearer token or else by cookie; kept in ``request.state.principal``.

    Raises TooManyAttempts for an address that has sent too many wrong tokens, and Forbidden for another site's write.
    Blocking: call it from a thread.
    """
    authenticator: Authenticator = request.app.state.authenticator
    secret = bearer_token(request)
    if secret is None:
        principal = authenticator.by_cookie(request.cookies.get(COOKIE, ""))
    else:
        principal = authenticator.by_token(secret, client_address(request)) if secret else None
    return _accepted(request, principal)


def bearer_token(request: Request) -> str | None:
    """The token of the header, empty when it is of another kind; None without the header."""
    header = request.headers.get("authorization")
    if not header:
        return None
    scheme, _, given = header.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _accepted(request: Request, principal: Principal | None) -> Principal | None:
    if principal is not None:
        # A cookie is sent by the browser whoever asks it to, so a write by cookie shows where it comes from.
        require_same_origin(request, proven=not request.headers.get("authorization"))
    request.state.principal = principal
    return principal


def _recent_principal(request: Request) -> Principal | None:
    """Who sent the request where that was looked up a moment ago; asks nobody, so a coroutine may call it."""
    authenticator: Authenticator = request.app.state.authenticator
    secret = bearer_token(request)
    return _accepted(request, authenticator.recent(secret, client_address(request))) if secret else None


def client_address(request: Request) -> str:
    """The address that sent the request; a proxy's, unless it is one of MIXWRIGHT_TRUSTED_PROXIES."""
    return request.client.host if request.client else "unknown"


def with_scope(request: Request, principal: Principal | None, scope: Scope) -> Principal:
    """The principal of a request who may do this; raises as `require_token` does."""
    if principal is None:
        if bearer_token(request):
            raise Unauthorized(
                "unauthorized", "This service does not know the token that was sent, or not any more."
            )
        raise Unauthorized("unauthorized", "Send the token as 'Authorization: Bearer <token>'.")
    if scope not in principal.scopes:
        raise Forbidden(
            "insufficient_scope",
            f"This needs a token of scope {scope.value!r}; {principal.name!r} has "
            f"{', '.join(sorted(principal.scopes)) or 'none'}.",
            scope=scope.value,
        )
    return principal


async def require_token(request: Request, write: Scope = Scope.WRITE) -> Principal:
    """Who sent the request, by its head alone: ``read`` is for looking, ``write`` for everything else.

    Raises Unauthorized without a valid token, Forbidden for one that may not do this.
    """
    principal = getattr(request.state, "principal", None) or _recent_principal(request)
    principal = principal or await run_in_threadpool(principal_of, request)
    return with_scope(request, principal, Scope.READ if request.method in SAFE_METHODS else write)


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def require_same_origin(request: Request, *, proven: bool) -> None:
    """Raise Forbidden for a write from another site's page, and, if ``proven``, for one that says nothing."""
    if request.method in SAFE_METHODS:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none") or not _is_own(request, origin, site):
        raise Forbidden("cross_origin", f"Writes from the origin {origin or site!r} are not accepted.")
    if proven and origin is None and site is None:
        raise Forbidden("cross_origin", "A write by cookie must come from a page of this service.")


def _is_own(request: Request, origin: str | None, site: str | None) -> bool:
    if origin is None:
        return True
    own = f"{request.base_url.scheme}://{request.base_url.netloc}"
    # Behind a proxy that ends TLS and is not trusted to say so, only the scheme differs.
    return origin == own or (site == "same-origin" and urlsplit(origin).netloc == request.base_url.netloc)


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
        network = network_of(address)
        with self._guard:
            if self._good.get((network, hash_of(secret))):
                return 0
            over = self._level(network) - (self._most - 1)
            return max(0, math.ceil(over * REFILL_SECONDS))

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        network = network_of(address)
        with self._guard:
            self._failures[network] = (self._level(network) + 1.0, self._clock())

    def succeeded(self, address: str, secret: str) -> None:
        """Remember a good token of the address."""
        key = (network_of(address), hash_of(secret))
        with self._guard:
            self._good[key] = True

    def _level(self, network: str) -> float:
        level, when = self._failures.get(network, (0.0, 0.0))
        return max(0.0, level - (self._clock() - when) / REFILL_SECONDS)


def network_of(address: str) -> str:
    """What counts as one address: IPv6 clients own whole networks of 2^64 addresses, so those do."""
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
