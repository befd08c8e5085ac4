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
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio.to_thread
from fastapi import Request
from fastapi.responses import StreamingResponse

from service.processes.computation import Busy

STREAMS = 64
LOOK_SECONDS = 1.0
LONGEST_SECONDS = 3600.0
SILENCE_SECONDS = 15.0
"""After which proxies and clients begin to doubt that the other side is there."""


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


async def stream(request: Request, look: Callable[[], Seen]) -> StreamingResponse:
    """The events of what ``look``, called in a thread, sees. Raises what the first look raises, and Busy."""
    app = request.app
    first = await anyio.to_thread.run_sync(look)
    app.state.streams = getattr(app.state, "streams", 0)
    if app.state.streams >= STREAMS:
        raise Busy
    known = request.headers.get("last-event-id")

    async def events() -> AsyncIterator[bytes]:
        app.state.streams += 1
        try:
            async for event in _changes(first, known, look):
                yield event
        finally:
            app.state.streams -= 1

    return StreamingResponse(events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


async def _changes(seen: Seen, known: str | None, look: Callable[[], Seen]) -> AsyncIterator[bytes]:
    clock = asyncio.get_running_loop().time
    end, spoken = clock() + LONGEST_SECONDS, clock()
    while True:
        if seen.tag != known or seen.is_over:
            known, spoken = seen.tag, clock()
            yield b"event: state\nid: %b\ndata: %b\n\n" % (known.encode(), seen.data)
        elif clock() - spoken > SILENCE_SECONDS:
            spoken = clock()
            yield b": still there\n\n"
        if seen.is_over or clock() > end:
            return
        await asyncio.sleep(LOOK_SECONDS)
        seen = await anyio.to_thread.run_sync(look)
