"""Server-sent events: a document again whenever it has changed, until what it is about has ended.

    event: state
    id: 6f1c...
    data: {"state": "running", ...}

Each web process looks at most at `STREAMS` documents for clients, once every `LOOK_SECONDS`; a stream ends after
`LONGEST_SECONDS`, and a client that wants more asks again with ``Last-Event-ID``, as browsers do by themselves. Lines
that begin with a colon say that the stream lives.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from fastapi import Request
from fastapi.responses import StreamingResponse

from service.processes.computation import Busy
from service.tokens import Principal
from store.problems import TooManyRequests

STREAMS = 64
USER_STREAMS = 16
"""Of a user; the operator may have all."""
LOOK_SECONDS = 1.0
LONGEST_SECONDS = 300.0
"""Then the client asks again, and its token is looked at again."""
SILENCE_SECONDS = 15.0
"""After which proxies and clients begin to doubt that the other side is there."""
STILL_THERE = b": still there\n\n"
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}
}


@dataclass(frozen=True)
class Seen:
    """What is there now.

    Attributes:
        data: the document, JSON in one line.
        content: of it what has to change to be news.
        is_over: whether it will change no more.
    """

    data: bytes
    content: bytes
    is_over: bool

    @property
    def tag(self) -> str:
        """One name for the same content."""
        return hashlib.sha256(self.content).hexdigest()[:32]


class Place:
    """Of a stream among those that a web process has ``open``, by the user's name; taken while it is sent."""

    def __init__(self, request: Request, open: Counter[str], most: int) -> None:
        """Raises Busy where there are ``most``, TooManyRequests where the user has `USER_STREAMS` of them."""
        user: Principal = request.state.principal
        self._open, self._name = open, user.name
        if open.total() >= most:
            raise Busy
        if open[user.name] >= USER_STREAMS and not user.is_operator:
            raise TooManyRequests(
                "too_many_streams", f"{user.name!r} may have {USER_STREAMS} of these streams open at once.", 1
            )

    def stream(self, events: AsyncIterator[bytes]) -> StreamingResponse:
        """The answer, which holds the place as long as it is sent."""
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._held(events), media_type="text/event-stream", headers=headers)

    async def _held(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open[self._name] += 1
        try:
            async for event in events:
                yield event
        finally:
            self._open[self._name] -= 1


async def stream(request: Request, look: Callable[[], Seen]) -> StreamingResponse:
    """The events of what ``look``, called in a thread, sees. Raises what the first look raises, and as `Place`."""
    first = await anyio.to_thread.run_sync(look)
    place = Place(request, request.app.state.streams, STREAMS)
    return place.stream(_changes(first, request.headers.get("last-event-id"), look))


async def _changes(seen: Seen, known: str | None, look: Callable[[], Seen]) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    end, spoken = clock() + LONGEST_SECONDS, clock()
    while True:
        if seen.tag != known or seen.is_over:
            known, spoken = seen.tag, clock()
            yield b"event: state\nid: %b\ndata: %b\n\n" % (known.encode(), seen.data)
        elif clock() - spoken > SILENCE_SECONDS:
            spoken = clock()
            yield STILL_THERE
        if seen.is_over or clock() > end:
            return
        await asyncio.sleep(LOOK_SECONDS)
        seen = await anyio.to_thread.run_sync(look)
