"""The web process: ``python -m service.web``. Answers requests and does nothing that takes long."""

import logging
import os
import socket

import click
import uvicorn

from service.app import create_app
from service.lifeline import exit_with_parent
from service.listener import listen
from service.settings import Settings

GRACE_SECONDS = 3
"""How long requests in progress may take once the process was asked to stop."""


def run_web(settings: Settings, listener: socket.socket) -> None:
    """Serve requests on ``listener`` until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        create_app(settings),
        access_log=False,  # a first visit carries the token in its query string
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_level=logging.INFO,
    )
    uvicorn.Server(config).run(sockets=[listener])


@click.command()
@click.option("--fd", type=int, help="A listening socket inherited from the parent process.")
@click.option("--exit-with-parent", "with_parent", is_flag=True, help="End when standard input does.")
def main(fd: int | None, with_parent: bool) -> None:
    """Answer requests with the settings in the environment."""
    if with_parent:
        exit_with_parent()
    settings = Settings()
    if fd is None:
        listener = listen(settings.host, settings.port)
    else:
        os.set_inheritable(fd, False)
        listener = socket.socket(fileno=fd)
    run_web(settings, listener)


if __name__ == "__main__":
    main()
