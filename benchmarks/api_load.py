"""Many clients in one process, cheap enough to share two cores with what they measure.

Each client has one connection and asks one request at a time: bytes prepared beforehand are sent, and of the answer
only the status and the length are read. A general client would use as much of a core as the service does.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Observed:
    """Seconds by endpoint, answers by status, and what the clients themselves used of a core."""

    seconds: dict[str, list[float]]
    statuses: Counter[int] = field(default_factory=Counter)
    taken: float = 0.0
    own_cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Load:
    """So many clients for so long, each asking every ``pause`` seconds; 0: as soon as it has its answer."""

    clients: int
    seconds: float
    pause: float


def drive(url: str, token: str, wanted: Mapping[str, Sequence[str]], load: Load) -> Observed:
    """Ask ``wanted`` (endpoint -> addresses, drawn from in turn), endpoints equally often."""
    return asyncio.run(_drive(url, token, wanted, load))


async def _drive(url: str, token: str, wanted: Mapping[str, Sequence[str]], load: Load) -> Observed:
    host, port = url.removeprefix("http://").split(":")
    names = list(wanted)
    observed = Observed({name: [] for name in names})
    head = f"HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\nAccept: */*\r\n\r\n"
    requests = {path: f"GET {path} {head}".encode() for name in names for path in wanted[name]}
    phases = np.random.default_rng(0).uniform(0.0, load.pause, load.clients)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(_Connection, host, int(port)))[1] for _ in range(load.clients)
    ]
    start, cpu = time.perf_counter(), time.process_time()

    async def client(number: int) -> None:
        turn, due = number, start + phases[number]
        while due < start + load.seconds:
            asked = time.perf_counter()
            if asked < due:
                await asyncio.sleep(due - asked)
                asked = time.perf_counter()
            elif load.pause:
                asked = due  # the answer before came too late: the wait for it is this one's too
            name = names[turn % len(names)]
            path = wanted[name][turn // len(names) % len(wanted[name])]
            observed.statuses[await connections[number].ask(requests[path])] += 1
            observed.seconds[name].append(time.perf_counter() - asked)
            turn += 1
            due = due + load.pause if load.pause else time.perf_counter()

    await asyncio.gather(*(client(number) for number in range(load.clients)))
    observed.taken, observed.own_cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    for connection in connections:
        connection.close()
    return observed


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as this service speaks it: every answer says its length."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._end: int | None = None
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status, once the whole answer is there."""
        self._received.clear()
        self._end = None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._end is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._end = end + 4 + int(length)
        if len(self._received) >= self._end and self._answer is not None:
            self._answer.set_result(int(self._received[9:12]))
            self._answer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.set_exception(exc or ConnectionError("closed before the answer was there"))

    def close(self) -> None:
        """End the connection."""
        self._transport.close()
