"""Writing down when tokens were last used, beside the requests: a read never waits for its turn to write."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import DBAPIError

from service.tokens.repository import note_uses
from store.engine import Database

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
