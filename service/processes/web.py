"""The web process: ``python -m service.processes.web``. Answers requests and does nothing that takes long."""

import asyncio
import ctypes
import ipaddress
import os
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import ClassVar

import click
import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import get_remote_addr

from service.http.app import create_app
from service.observability.requests import install_audit_log
from service.processes.address import listen
from store.lifeline import exit_with_parent
from store.logs import configure_logging
from store.schema import require_schema
from store.settings import Settings, settings_or_exit

GRACE_SECONDS = 3
"""How long requests in progress may take once the process was asked to stop."""
SWITCH_SECONDS = 0.001
"""After so long a thread that makes a large document lets the others on, instead of Python's five milliseconds: each
answer waits for that as often as it has asked the database."""
FEW_ARENAS = (-8, 2)
"""glibc's M_ARENA_MAX: with one for each thread, each keeps the most that it ever held."""


def run_web(settings: Settings, listener: socket.socket) -> None:
    """Serve requests on ``listener`` until SIGTERM or SIGINT.

    Raises OldSchema or UnknownRevision when the database is not at this version's schema.
    """
    configure_logging(settings)
    install_audit_log()
    require_schema(settings.resolved_database_url)
    sys.setswitchinterval(SWITCH_SECONDS)
    with suppress(AttributeError):  # where the C library is another
        ctypes.CDLL(None).mallopt(*FEW_ARENAS)
    app = create_app(settings)
    # The first that is computed would wait for imports, those who only look must not.
    threading.Thread(target=app.state.computations.warm_up, name="warm-up", daemon=True).start()
    uvicorn.Server(server_config(app, settings)).run(sockets=[listener])


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How requests are taken in, before the application sees them."""
    return uvicorn.Config(
        app,
        access_log=False,  # a first visit may carry a code in its query string
        server_header=False,
        proxy_headers=bool(
            settings.trusted_proxies
        ),  # uvicorn's own default believes anybody on this machine
        forwarded_allow_ips=settings.trusted_proxies,
        http=bounded(settings),
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,  # everything goes through store.logs
    )


@click.command()
@click.option("--fd", type=int, help="A listening socket inherited from the parent process.")
@click.option("--exit-with-parent", "with_parent", is_flag=True, help="End when standard input does.")
def main(fd: int | None, with_parent: bool) -> None:
    """Answer requests with the settings in the environment."""
    if with_parent:
        exit_with_parent()
    settings = settings_or_exit()
    if fd is None:
        listener = listen(settings.host, settings.port)
    else:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    run_web(settings, listener)


# Connections of clients that are slow, or many: a head has its time, and a client its number of connections.
#
# uvicorn closes a connection that says nothing after an answer; one that never ends its first line, or one client
# with all the connections there are, it lets be. Beyond its `limit_concurrency` it refuses requests, also of those
# who are connected already, so it is not told of one: here it is new connections that are refused.

HEAD_SECONDS = 10.0
"""From the opening of a connection, or its first byte after an answer, to the end of a request's head."""
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)


class BoundedConnection(H11Protocol):
    """uvicorn's connection with the bounds of `bounded`, which makes the class that is served."""

    most = most_in_all = 1
    trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    open: ClassVar[Counter[str]] = Counter()
    _head: asyncio.TimerHandle | None = None
    _address: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        address = (get_remote_addr(transport) or ("", 0))[0]
        is_crowd = self.open[address] >= self.most and not self._is_trusted(address)
        if is_crowd or self.open.total() >= self.most_in_all:
            self.transport = transport  # uvicorn does not hear of it
            transport.write(_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        self._address = address
        self.open[address] += 1
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no longer."""
        if self._address is not None:
            self.open[self._address] -= 1
            if not self.open[self._address]:
                del self.open[self._address]
            self._address = None
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came; of one that is being closed nothing more."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch_head()
        else:
            self._stop_watching()

    def _watch_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_watching(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self.conn.their_state is h11.IDLE:
            self.timeout_keep_alive_handler()

    def _is_trusted(self, address: str) -> bool:
        # A proxy's connections are many clients'.
        try:
            return any(ipaddress.ip_address(address) in network for network in self.trusted)
        except ValueError:
            return False


def bounded(settings: Settings) -> type[BoundedConnection]:
    """The class of connections for these settings, with a count of its own."""
    named = (part.strip() for part in settings.trusted_proxies.split(","))
    trusted = tuple(ipaddress.ip_network(part, strict=False) for part in named if part and part != "*")
    most = settings.client_connections if settings.trusted_proxies.strip() != "*" else settings.connections
    bounds = {"most": most, "most_in_all": settings.connections, "trusted": trusted, "open": Counter()}
    return type("Connection", (BoundedConnection,), bounds)


if __name__ == "__main__":
    main()
