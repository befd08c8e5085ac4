"""Identifiers, all made here: a prefix that says what it names, then time, then randomness."""

import secrets
import threading
import time

_RANDOM_BITS = 48

_guard = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """A name such as ``run_01931f0c2b7a4e1f6c0d2a98``: sorts by creation time, so a list pages by id.

    Twelve hexadecimal digits of milliseconds, twelve of randomness. Ids made by one process are strictly
    increasing whatever its clock does: a second one within a millisecond counts on from the first by a
    random step, as RFC 9562 proposes for UUID version 7 (section 6.2, monotonic random).
    """
    global _last
    with _guard:
        fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if fresh >> _RANDOM_BITS <= _last >> _RANDOM_BITS:
            fresh = _last + 1 + secrets.randbits(_RANDOM_BITS - 16)
        _last = fresh
    return f"{prefix}_{fresh:024x}"
