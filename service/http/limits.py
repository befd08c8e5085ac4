"""What one user may take of the service, so that the others keep theirs: requests, places, what is stored and queued.

A user is a token's name. The operator's own token is nobody's quota; what holds for all together holds for it too.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Annotated, Any

import anyio
from cachetools import LRUCache
from fastapi import Depends, Request
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from service.http.auth import MOST_ADDRESSES
from service.processes.computation import Busy, Patience
from service.tokens import Principal
from store import jobs
from store.engine import CONNECTIONS
from store.problems import Forbidden, TooManyRequests
from store.settings import Settings
from store.tables import DomainSet, Job, Launch, Optimization, Swarm

BURST_SECONDS = 2.0
"""A user who was quiet may send so many seconds' requests at once."""
SLOW_THREADS = 8
"""Of requests that wait for files, stores or computations; the others have threads that these never take."""
USER_THREADS = CONNECTIONS // 4
"""Of the others, that are each user's at most."""
QUEUE_SECONDS = 1.0
"""How long a request may wait for one of them; what those before it have used may end that sooner. A user who asks
for no more than `user_requests_per_second` waits less, and who asks for more is answered so within two seconds."""
SHORT_BYTES = 2**16
"""Bodies up to this cost no more than any other request."""
BYTES_A_REQUEST, SECONDS_A_REQUEST = 2**14, 0.005
"""Of a body, and of a processor, that are as much work as a request: a hundred a second are half a processor."""
REFUSALS_A_SECOND, LONGEST_PAUSE_SECONDS = 50.0, 1.0
"""Of who asks too much: each waits for those before it, so that refusing takes no more of a processor than that."""

Sender = Principal | str
"""A user, or the address that somebody asks from who is none."""


class Limits:
    """What users take of one web process. `admit` is safe to use from several threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most = settings.user_requests_per_second, settings.user_slow_requests
        self._wait_seconds, self._clock, self._guard = settings.wait_seconds, clock, threading.Lock()
        self._sent: LRUCache[tuple[bool, str], tuple[float, float]] = LRUCache(MOST_ADDRESSES)
        """Of each sender how many requests count still, and when that was."""
        self._refused: LRUCache[tuple[bool, str], tuple[float, float]] = LRUCache(MOST_ADDRESSES)
        """The same of refusals that were not sent yet."""
        self._strangers_rate = settings.address_requests_per_second
        self._places: dict[str | None, anyio.Semaphore] = {}
        """Of each user those for what is answered at once, and of all together (None) those for what takes long."""
        self._held: Counter[str] = Counter()

    def admit(self, sender: Sender) -> None:
        """Count a request; raises TooManyRequests where the sender has sent too many lately."""
        self._require(sender, 1.0)

    def pause(self, sender: Sender) -> float:
        """Seconds until the refusal of a request is sent, for those before it are sent first."""
        now, rate = self._clock(), REFUSALS_A_SECOND
        with self._guard:
            waiting, when = self._refused.get(_key(sender), (0.0, now))
            waiting = max(0.0, waiting - (now - when) * rate)
            self._refused[_key(sender)] = (min(waiting + 1.0, LONGEST_PAUSE_SECONDS * rate), now)
        return waiting / rate

    def _require(self, sender: Sender, requests: float) -> None:
        if isinstance(sender, str):
            rate, said = (
                self._strangers_rate,
                f"{sender} may send {{}} requests a second without a token that is known.",
            )
        else:
            rate, said = self._rate, f"{sender.name!r} may send {{}} requests a second."
        over = self._counted(sender, requests, rate, rate * BURST_SECONDS)
        if over > 0:
            raise TooManyRequests("too_many_requests", said.format(f"{rate:g}"), math.ceil(over / rate))

    def charge(self, user: Principal, requests: float) -> None:
        """Count a request that was admitted as so many more, which the next ones wait for."""
        self._counted(user, requests, self._rate, math.inf)

    def _counted(self, sender: Sender, requests: float, rate: float, most: float) -> float:
        """By how many there would be over ``most``, and then they are not counted; the operator's never are."""
        if isinstance(sender, Principal) and sender.is_operator:
            return 0.0
        now, key = self._clock(), _key(sender)
        with self._guard:
            sent, when = self._sent.get(key, (0.0, now))
            sent = max(0.0, sent - (now - when) * rate)
            over = sent + requests - most
            self._sent[key] = (sent if over > 0 else sent + requests, now)
        return over

    @asynccontextmanager
    async def turn(self, user: Principal, request: Request, is_slow: bool) -> AsyncIterator[Patience]:
        """Within it a request that was admitted may be answered: its body is here, and what takes long has a place.

        Gives what is left of the time that the request may wait, for whatever it has to wait for after that.

        Nothing of the body is read, nor is memory taken for it, before that is known. A long body takes a place too,
        for its document is many times its size, and checking it keeps everybody else waiting; it also counts as
        many requests. Raises TooManyRequests, Busy, and what the body is refused for.
        """
        is_slow = is_slow or not _has_short_body(request)
        with self._share(user) if is_slow else nullcontext():
            body = await request.body()
            self.charge(user, len(body) / BYTES_A_REQUEST)
            async with self._place(user, is_slow) as patience:
                yield patience

    @contextmanager
    def _share(self, user: Principal) -> Iterator[None]:
        """One of the few that a user may have under way; raises TooManyRequests."""
        if not user.is_operator and self._held[user.name] >= self._most:
            raise _too_many_at_once(user, self._most)
        self._held[user.name] += 1
        try:
            yield
        finally:
            self._held[user.name] -= 1
            if not self._held[user.name]:
                del self._held[user.name]

    @asynccontextmanager
    async def _place(self, user: Principal, is_slow: bool) -> AsyncIterator[Patience]:
        """One of the few that there are for what takes long, or that a user has for everything else.

        Raises after a wait, Busy or TooManyRequests; the latter too where those before have used what a user may.
        """
        patience = Patience(self._wait_seconds if is_slow else QUEUE_SECONDS, self._clock)
        if user.is_operator and not is_slow:
            yield patience
            return
        name, number = (None, SLOW_THREADS) if is_slow else (user.name, USER_THREADS)
        # Made here, for they belong to the event loop.
        places = self._places.setdefault(name, anyio.Semaphore(number))
        has_waited = False
        try:
            places.acquire_nowait()
        except anyio.WouldBlock:
            has_waited = True
            with patience.waiting(), anyio.move_on_after(patience.seconds) as waiting:
                await places.acquire()
            if waiting.cancelled_caught:
                raise (Busy() if is_slow else _too_many_at_once(user, number)) from None
        try:
            if has_waited and not is_slow:
                self._require(user, 0.0)
            yield patience
        finally:
            places.release()


def _key(sender: Sender) -> tuple[bool, str]:
    return (False, sender) if isinstance(sender, str) else (True, sender.name)


def _too_many_at_once(user: Principal, number: int) -> TooManyRequests:
    return TooManyRequests(
        "too_many_at_once", f"{user.name!r} may have {number} requests of this kind under way at once.", 1
    )


def _has_short_body(request: Request) -> bool:
    """By its head alone."""
    announced = request.headers.get("content-length", "0")
    is_announced = "transfer-encoding" not in request.headers and announced.isdigit()
    return is_announced and int(announced) <= SHORT_BYTES


async def user_of(request: Request) -> Principal:
    """FastAPI dependency: who sent the request, as the token check has found."""
    return request.state.principal


User = Annotated[Principal, Depends(user_of)]


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


def check_swarms(session: Session, settings: Settings, user: Principal) -> None:
    """Raise Forbidden where a user has brought as many swarms as one may have."""
    if user.is_operator:
        return
    made = session.scalar(select(func.count()).select_from(Swarm).where(Swarm.user_name == user.name))
    if (made or 0) >= settings.user_swarms:
        raise Forbidden(
            "too_many_swarms",
            f"{user.name!r} has brought {made} swarms, as many as a user may have; have the operator raise"
            " MIXWRIGHT_USER_SWARMS.",
        )


def check_queue(session: Session, settings: Settings, user: Principal, device_hours: float) -> None:
    """Raise TooManyRequests where a user has asked for as much as one may have under way, or would now."""
    if user.is_operator:
        return
    live = session.scalar(_of_live_optimizations(func.count(), user)) or 0
    if live >= settings.user_optimizations:
        raise TooManyRequests(
            "too_many_optimizations",
            f"{user.name!r} has {live} optimizations under way, as many as a user may have"
            " (MIXWRIGHT_USER_OPTIMIZATIONS).",
            60,
        )
    check_device_hours(session, settings, user, device_hours)


def _of_live_optimizations(what: ColumnElement[Any], user: Principal) -> Select[*tuple[Any, ...]]:
    return select(what).where(Optimization.user_name == user.name, Optimization.state.in_(jobs.LIVE))


def check_device_hours(session: Session, settings: Settings, user: Principal, device_hours: float) -> None:
    """Raise TooManyRequests where a user's optimizations and launches under way would take more than one may."""
    if user.is_operator:
        return
    launched = (
        select(func.sum(Launch.device_hours))
        .join(Job, Job.owner == Launch.id)
        .where(Job.user_name == user.name, Job.state.in_(jobs.LIVE))
    )
    asked = (_of_live_optimizations(func.sum(Optimization.device_hours), user), launched)
    hours = sum(session.scalar(query) or 0.0 for query in asked)
    if hours + device_hours > settings.user_device_hours:
        raise TooManyRequests(
            "too_many_device_hours",
            f"This takes about {device_hours:,.1f} device-hours beside the {hours:,.1f} that {user.name!r} has"
            f" under way; a user may have {settings.user_device_hours:,g} (MIXWRIGHT_USER_DEVICE_HOURS).",
            60,
        )
