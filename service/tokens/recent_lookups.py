"""What was looked up a moment ago about a token, so that a client which polls costs no query each time.

A token that ends (revoked, rotated without grace, expired) is believed in for `TRUST_SECONDS` more at most. What this
process itself changes about tokens it knows at once.
"""

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session

TRUST_SECONDS = 2.0
MOST_REMEMBERED = 10_000

Found = TypeVar("Found")
Key = tuple[str, str]

_changes = itertools.count(1)
_last_change = 0


def forget_when_committed(session: Session) -> None:
    """Make every look-up of this process a new one once ``session`` has committed what it changes about tokens."""
    event.listen(session, "after_commit", _forget, once=True)


def _forget(_session: Session) -> None:
    global _last_change
    _last_change = next(_changes)


@dataclass(frozen=True, slots=True)
class Moment:
    """When a look-up began: seconds of the clock, and how many changes this process had made by then."""

    seconds: float
    change: int


class RecentLookups(Generic[Found]):
    """Answers by client address and secret's hash. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._found: OrderedDict[Key, tuple[Found, Moment]] = OrderedDict()

    def now(self) -> Moment:
        """To be taken before the store is asked: an answer is as old as its question."""
        return Moment(self._clock(), _last_change)

    def get(self, key: Key) -> Found | None:
        """The answer, while it may be believed."""
        kept = self._found.get(key)
        if kept is None:
            return None
        found, asked = kept
        is_fresh = asked.change == _last_change and self._clock() - asked.seconds <= TRUST_SECONDS
        return found if is_fresh else None

    def put(self, key: Key, found: Found, asked: Moment) -> None:
        """Keep an answer; the one kept first goes when there are too many."""
        with self._guard:
            self._found[key] = (found, asked)
            self._found.move_to_end(key)
            while len(self._found) > MOST_REMEMBERED:
                self._found.popitem(last=False)
