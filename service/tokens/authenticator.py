"""Who sent a request: the operator, a user's token, or a browser that one of them signed in."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from service.tokens import sessions
from service.tokens.failed_attempts import USUAL_FAILURES, FailedAttempts
from service.tokens.last_uses import LastUses
from service.tokens.recent_lookups import RecentLookups
from service.tokens.repository import find_by_hash
from service.tokens.scopes import ALL_SCOPES, Scope
from service.tokens.secrets import hash_of, same
from store.engine import Database
from store.problems import TooManyAttempts

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
        self._recent: RecentLookups[Principal] = RecentLookups(clock)
        self._last_uses = LastUses(database)

    def recent(self, secret: str, address: str) -> Principal | None:
        """Whose token it is, if `by_token` answered that for this address within `TRUST_SECONDS`; asks nobody."""
        return self._recent.get((address, hash_of(secret)))

    def by_token(self, secret: str, address: str) -> Principal | None:
        """Whose token it is. Raises TooManyAttempts while ``address`` has sent too many wrong ones."""
        wait = self._attempts.wait_seconds(address, secret)
        if wait:
            raise TooManyAttempts(wait)
        secret_hash = hash_of(secret)
        asked = self._recent.now()
        found = self._look_up(secret_hash)
        if found is None:
            self._attempts.failed(address)
        else:
            self._attempts.succeeded(address, secret)
            self._recent.put((address, secret_hash), found, asked)
        return found

    def by_cookie(self, cookie: str) -> Principal | None:
        """Whose browser it is. A cookie that has run out is no attempt at guessing one."""
        if not cookie:
            return None
        with self._database.read() as session:
            row = sessions.session_of(session, self._operator_token, cookie)
        if row is None:
            return None
        if row.token_id is None:
            return Principal(OPERATOR, ALL_SCOPES)
        return self._look_up(row.secret_hash or "", row.token_id)

    def sign_in(self, principal: Principal) -> str:
        """A new session's cookie."""
        with self._database.write() as session:
            return sessions.open_session(
                session, self._operator_token, principal.token_id, principal.secret_hash
            )

    def sign_out(self, cookie: str) -> None:
        """End the cookie's session."""
        with self._database.write() as session:
            sessions.close_session(session, self._operator_token, cookie)

    def close(self) -> None:
        """Write down what is not written yet."""
        self._last_uses.close()

    def _look_up(self, secret_hash: str, token_id: str | None = None) -> Principal | None:
        if token_id is None and same(secret_hash, self._operator_hash):
            return Principal(OPERATOR, ALL_SCOPES)
        with self._database.read() as session:
            found = find_by_hash(session, secret_hash, token_id)
        if found is None:
            return None
        if found.last_used_is_old:
            self._last_uses.note(found.token_id)
        return Principal(found.name, found.scopes, found.token_id, secret_hash)
