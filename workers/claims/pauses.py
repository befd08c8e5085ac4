"""How long a device stays paused after several jobs failed on it: longer each time, until a job succeeds there.

What killed them may be over, or may not have been the device at all (a cluster that kills processes); a service all
of whose devices wait for somebody to look at them would be stuck. Each end of a pause is a trial: one more failure
and the device is paused again, for twice as long.
"""

import time
from collections.abc import Callable

LONGEST_SECONDS = 3600.0


class Pauses:
    """When the pauses of one process' slots end, by the slots' names; ``clock`` gives seconds."""

    def __init__(self, first_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first, self._clock = first_seconds, clock
        self._ends: dict[str, float] = {}
        self._times: dict[str, int] = {}

    def is_over(self, name: str) -> bool:
        """Of a slot that is paused: whether it may try again. The first question starts the time."""
        if name not in self._ends:
            seconds = min(self._first * 2 ** self._times.get(name, 0), LONGEST_SECONDS)
            self._ends[name] = self._clock() + seconds
            self._times[name] = self._times.get(name, 0) + 1
        if self._clock() < self._ends[name]:
            return False
        del self._ends[name]
        return True

    def succeeded(self, name: str) -> None:
        """A job has: the next pause is a first one again."""
        self._ends.pop(name, None)
        self._times.pop(name, None)
