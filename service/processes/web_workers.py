"""Several web processes on one port: ``mixwright web --workers N``.

This process opens the port, keeps its children running and answers nothing itself. Whichever child is free accepts a
connection, and a connection stays with it. Nothing is kept in a process that another one would need: tokens, sessions
and idempotency keys are in the database.
"""

import os
import socket
import sys
import tempfile

from prometheus_client.multiprocess import mark_process_dead

from service.processes.child_process import KeptProcess
from service.processes.serving import CHILD_ENVIRONMENT, TEND_SECONDS, StartFailed, stop_all, stop_on_signals
from service.processes.web_processes import SHARED_DIRECTORY
from store.logs import configure_logging
from store.schema.version import require_schema
from store.settings import Settings


def run_web_workers(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Keep so many web processes answering on ``listener`` until SIGTERM or SIGINT.

    Raises OldSchema or UnknownRevision before one is started, StartFailed when one ends time and again.
    """
    configure_logging(settings)
    require_schema(settings.resolved_database_url)
    with stop_on_signals() as stop, tempfile.TemporaryDirectory(prefix="mixwright-metrics-") as shared:
        children = [_web_process(settings, listener, shared, number + 1) for number in range(workers)]
        try:
            for child in children:
                child.start()
            pids = [child.pid for child in children]
            while not stop.wait(TEND_SECONDS):
                for index, child in enumerate(children):
                    if child.tend() and (ended := pids[index]) is not None:
                        mark_process_dead(
                            ended, shared
                        )  # its connections are gone; its requests stay counted
                    if child.never_came_up:
                        raise StartFailed(f"{child.name} does not start")
                    pids[index] = child.pid
        finally:
            stop_all(children)


def _web_process(settings: Settings, listener: socket.socket, shared: str, number: int) -> KeptProcess:
    environment = {**os.environ, **settings.environment(), **CHILD_ENVIRONMENT, SHARED_DIRECTORY: shared}
    descriptor = listener.fileno()
    command = [sys.executable, "-m", "service.processes.web", "--fd", str(descriptor), "--exit-with-parent"]
    return KeptProcess(f"web {number}", command, environment, None, (descriptor,))
