"""Wrong tokens are counted by client address, in the memory of the web process.

A bucket of some (``MIXWRIGHT_WRONG_TOKENS``) an address, one more every `REFILL_SECONDS`. While it is empty nothing
from the address is compared at all, except tokens that were good there before: who shares an address with a guesser
(a proxy, an office) goes on working, and the guesser learns nothing.
"""

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from service.tokens.secrets import hash_of

USUAL_FAILURES = 10
REFILL_SECONDS = 30.0
MOST_ADDRESSES = 10_000
"""Addresses and good tokens remembered; the ones not seen for longest are forgotten."""


class FailedAttempts:
    """Who has sent wrong tokens lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = USUAL_FAILURES) -> None:
        self._clock, self._most = clock, most
        self._guard = threading.Lock()
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (level, when)
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait_seconds(self, address: str, secret: str) -> int:
        """Whole seconds until the address may try this secret; 0 is now."""
        network = _network(address)
        with self._guard:
            if (network, hash_of(secret)) in self._good:
                return 0
            over = self._level(network) - (self._most - 1)
            return max(0, math.ceil(over * REFILL_SECONDS))

    def failed(self, address: str) -> None:
        """Count a wrong token."""
        network = _network(address)
        with self._guard:
            self._failures[network] = (self._level(network) + 1.0, self._clock())
            _keep_newest(self._failures, network)

    def succeeded(self, address: str, secret: str) -> None:
        """Remember a good token of the address."""
        key = (_network(address), hash_of(secret))
        with self._guard:
            self._good[key] = None
            _keep_newest(self._good, key)

    def _level(self, network: str) -> float:
        level, when = self._failures.get(network, (0.0, 0.0))
        return max(0.0, level - (self._clock() - when) / REFILL_SECONDS)


def _keep_newest(entries: OrderedDict, key: object) -> None:
    entries.move_to_end(key)
    while len(entries) > MOST_ADDRESSES:
        entries.popitem(last=False)


def _network(address: str) -> str:
    """IPv6 clients own whole networks of 2^64 addresses, which count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
