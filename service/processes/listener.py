"""The listening socket, opened before any process that answers on it.

It belongs to the process that keeps the web process running, so while the latter is started again
connections wait in the queue instead of being refused.
"""

import errno
import http.client
import socket
import time
from urllib.parse import urlsplit

BACKLOG = 1024
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class PortInUse(RuntimeError):
    """Another program listens there."""


def listen(host: str, port: int, patience_seconds: float = 0.0) -> socket.socket:
    """A listening socket on ``host`` and ``port`` (0: any free one).

    Raises PortInUse when another program still has the port after ``patience_seconds``.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if time.monotonic() >= deadline:
                raise PortInUse(
                    f"port {port} on {host} is in use by another program; "
                    "choose another with --port, or 0 for any free one"
                ) from error
        time.sleep(0.1)


def address(listener: socket.socket) -> str:
    """The URL a program on this machine reaches the listener under."""
    host, port = listener.getsockname()[:2]
    host = _ANY_ADDRESS.get(str(host), str(host))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def answers(url: str, timeout_seconds: float = 1.0) -> bool:
    """Whether ``/healthz`` of the service at ``url`` answers 200.

    Not through a client that reads proxy settings: the address is on this machine.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
