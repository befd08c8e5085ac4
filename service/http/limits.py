"""What one user may take of the service, so that the others keep theirs: requests, places, what is stored and queued.

A user is a token's name. The operator's own token is nobody's quota; what holds for all together holds for it too.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from fastapi import Depends, Request
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.processes.computation import Busy
from service.tokens import Principal
from store import jobs
from store.problems import Forbidden, TooManyRequests
from store.settings import Settings
from store.tables import DomainSet, Optimization

BURST_SECONDS = 2.0
"""A user who was quiet may send so many seconds' requests at once."""
SLOW_THREADS = 8
"""Of requests that wait for files, stores or computations; the others have threads that these never take."""


class Limits:
    """What users take of one web process. `admit` is safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most = settings.user_requests_per_second, settings.user_slow_requests
        self._wait_seconds, self._clock, self._guard = settings.wait_seconds, clock, threading.Lock()
        self._sent: dict[str, tuple[float, float]] = {}
        """Of each user how many requests count still, and when that was."""
        self._places: anyio.Semaphore | None = None
        self._held: Counter[str] = Counter()

    def admit(self, user: Principal) -> None:
        """Count a request; raises TooManyRequests where a user has sent too many lately."""
        if user.is_operator:
            return
        now = self._clock()
        with self._guard:
            sent, when = self._sent.get(user.name, (0.0, now))
            sent = max(0.0, sent - (now - when) * self._rate)
            over = sent + 1 - self._rate * BURST_SECONDS
            self._sent[user.name] = (sent if over > 0 else sent + 1, now)
        if over > 0:
            raise TooManyRequests(
                "too_many_requests",
                f"{user.name!r} may send {self._rate:g} requests a second.",
                math.ceil(over / self._rate),
            )

    @asynccontextmanager
    async def place(self, user: Principal) -> AsyncIterator[None]:
        """One of the few places of requests that take long. Raises TooManyRequests, and Busy after a wait."""
        if not user.is_operator and self._held[user.name] >= self._most:
            raise TooManyRequests(
                "too_many_at_once",
                f"{user.name!r} may have {self._most} requests of this kind under way at once.",
                1,
            )
        if self._places is None:  # made here, for it belongs to the event loop
            self._places = anyio.Semaphore(SLOW_THREADS)
        self._held[user.name] += 1
        try:
            try:
                self._places.acquire_nowait()
            except anyio.WouldBlock:
                with anyio.move_on_after(self._wait_seconds) as waiting:
                    await self._places.acquire()
                if waiting.cancelled_caught:
                    raise Busy from None
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._held[user.name] -= 1
            if not self._held[user.name]:
                del self._held[user.name]


async def user_of(request: Request) -> Principal:
    """FastAPI dependency: who sent the request, as the token check has found."""
    return request.state.principal


User = Annotated[Principal, Depends(user_of)]


async def take_place(request: Request) -> AsyncIterator[None]:
    """FastAPI dependency of what takes long: `Limits.place` until the endpoint has ended."""
    limits: Limits = request.app.state.limits
    async with limits.place(request.state.principal):
        yield


def check_domain_sets(session: Session, settings: Settings, user: Principal) -> None:
    """Raise Forbidden where a user has as many domain sets as one may have."""
    if user.is_operator:
        return
    made = session.scalar(select(func.count()).select_from(DomainSet).where(DomainSet.user_name == user.name))
    if (made or 0) >= settings.user_domain_sets:
        raise Forbidden(
            "too_many_domain_sets",
            f"{user.name!r} has {made} domain sets, as many as a user may have; post a revision of one of them, or"
            " have the operator raise MIXWRIGHT_USER_DOMAIN_SETS.",
        )


def check_queue(session: Session, settings: Settings, user: Principal, device_hours: float) -> None:
    """Raise TooManyRequests where a user has asked for as much as one may have under way, or would now."""
    if user.is_operator:
        return
    query = select(func.count(), func.sum(Optimization.device_hours)).where(
        Optimization.user_name == user.name, Optimization.state.in_(jobs.LIVE)
    )
    live, hours = session.execute(query).one()
    if live >= settings.user_optimizations:
        raise TooManyRequests(
            "too_many_optimizations",
            f"{user.name!r} has {live} optimizations under way, as many as a user may have"
            " (MIXWRIGHT_USER_OPTIMIZATIONS).",
            60,
        )
    if (hours or 0.0) + device_hours > settings.user_device_hours:
        raise TooManyRequests(
            "too_many_device_hours",
            f"This takes about {device_hours:,.1f} device-hours beside the {hours or 0.0:,.1f} that {user.name!r} has"
            f" under way; a user may have {settings.user_device_hours:,g} (MIXWRIGHT_USER_DEVICE_HOURS).",
            60,
        )
