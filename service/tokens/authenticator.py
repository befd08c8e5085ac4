"""Who sent a request: the operator, a user's token, or a browser that one of them signed in.

Wrong tokens are counted by client address, in the memory of the web process: a bucket of some
(``MIXWRIGHT_WRONG_TOKENS``) an address, one more every `REFILL_SECONDS`. While it is empty nothing from the address
is compared at all, except tokens that were good there before: who shares an address with a guesser (a proxy, an
office) goes on working, and the guesser learns nothing.
"""

import ipaddress
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cachetools import LRUCache, TLRUCache
from sqlalchemy.exc import DBAPIError

from service.tokens.repository import (
    ALL_SCOPES,
    Scope,
    close_session,
    find_by_hash,
    hash_of,
    last_change,
    note_uses,
    open_session,
    same,
    session_of,
)
from store.engine import Database
from store.problems import TooManyAttempts

USUAL_FAILURES = 10
REFILL_SECONDS = 30.0
MOST_ADDRESSES = 10_000
"""Addresses and good tokens remembered; the ones not seen for longest are forgotten."""
TRUST_SECONDS = 2.0
"""How long what was looked up about a token is believed, so that a client which polls costs no query each time: a
token that ends (revoked, rotated without grace, expired) works so much longer at most. What this process itself
changes about tokens it knows at once."""
MOST_LOOKUPS = 10_000


class FailedAttempts:
    """Who has sent wrong tokens lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = USUAL_FAILURES) -> None:
        self._clock, self._most = clock, most
        self._guard = threading.Lock()
        self._failures: LRUCache[str, tuple[float, float]] = LRUCache(
            MOST_ADDRESSES
        )  # address -> (level, when)
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


class LastUses:
    """One thread that writes; what is noted while it does is written together next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = ThreadPoolExecutor(1, "last-uses")
        self._guard = threading.Lock()
        self._pending: set[str] = set()

    def note(self, token_id: str) -> None:
        """Have it written that the token is used now; answers at once."""
        with self._guard:
            is_waiting = bool(self._pending)
            self._pending.add(token_id)
        if not is_waiting:
            self._writer.submit(self._write)

    def close(self) -> None:
        """Wait until everything noted is written."""
        self._writer.shutdown()

    def _write(self) -> None:
        with self._guard:
            used, self._pending = self._pending, set()
        try:
            with self._database.write() as session:
                note_uses(session, used)
        except DBAPIError:
            # It says when a token was used, no more: the next request with it tries again.
            _log.warning("the last use of %d tokens could not be written down", len(used), exc_info=True)


OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who it is and what that one may do; ``token_id`` and ``secret_hash`` are None for the operator."""

    name: str
    scopes: frozenset[Scope]
    token_id: str | None = None
    secret_hash: str | None = None


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
        # (address, secret's hash, changes made by then) -> (who, when the store was asked): an answer is as old as
        # its question.
        self._recent: TLRUCache[tuple[str, str, int], tuple[Principal, float]] = TLRUCache(
            MOST_LOOKUPS, lambda _key, answer, _now: answer[1] + TRUST_SECONDS, clock
        )
        self._last_uses = LastUses(database)

    def recent(self, secret: str, address: str) -> Principal | None:
        """Whose token it is, if `by_token` answered that for this address within `TRUST_SECONDS`; asks nobody."""
        key = (address, hash_of(secret), last_change())
        with self._guard:
            answer = self._recent.get(key)
        return None if answer is None else answer[0]

    def by_token(self, secret: str, address: str) -> Principal | None:
        """Whose token it is. Raises TooManyAttempts while ``address`` has sent too many wrong ones."""
        wait = self._attempts.wait_seconds(address, secret)
        if wait:
            raise TooManyAttempts(wait)
        secret_hash = hash_of(secret)
        key, asked_at = (address, secret_hash, last_change()), self._clock()
        principal = self._look_up(secret_hash)
        if principal is None:
            self._attempts.failed(address)
        else:
            self._attempts.succeeded(address, secret)
            with self._guard:
                self._recent[key] = (principal, asked_at)
        return principal

    def by_cookie(self, cookie: str) -> Principal | None:
        """Whose browser it is. A cookie that has run out is no attempt at guessing one."""
        if not cookie:
            return None
        with self._database.read() as session:
            row = session_of(session, self._operator_token, cookie)
        if row is None:
            return None
        if row.token_id is None:
            return Principal(OPERATOR, ALL_SCOPES)
        return self._look_up(row.secret_hash or "", row.token_id)

    def sign_in(self, principal: Principal) -> str:
        """A new session's cookie."""
        with self._database.write() as session:
            return open_session(session, self._operator_token, principal.token_id, principal.secret_hash)

    def sign_out(self, cookie: str) -> None:
        """End the cookie's session."""
        with self._database.write() as session:
            close_session(session, self._operator_token, cookie)

    def close(self) -> None:
        """Write down what is not written yet."""
        self._last_uses.close()

    def _look_up(self, secret_hash: str, token_id: str | None = None) -> Principal | None:
        if token_id is None and same(secret_hash, self._operator_hash):
            return Principal(OPERATOR, ALL_SCOPES)
        with self._database.read() as session:
            token = find_by_hash(session, secret_hash, token_id)
        if token is None:
            return None
        if token.last_used_is_old:
            self._last_uses.note(token.token_id)
        return Principal(token.name, token.scopes, token.token_id, secret_hash)
