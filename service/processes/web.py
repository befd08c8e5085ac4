"""The web process: ``python -m service.processes.web``. Answers requests and does nothing that takes long."""

import ctypes
import os
import socket
import sys
import threading
from contextlib import suppress

import click
import uvicorn
from fastapi import FastAPI

from service.http.app import create_app
from service.observability.requests import install_audit_log
from service.processes.address import listen
from service.processes.connections import bounded
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


if __name__ == "__main__":
    main()
