"""A PostgreSQL of the test's own on a free port, which may be stopped in the middle of everything."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.temporary_servers import START_SECONDS, _postgres_binary, _private_directory, _run


class OwnPostgres:
    """A cluster in ``directory``; its files outlive a restart."""

    def __init__(self, directory: Path) -> None:
        self._pg_ctl = _postgres_binary("pg_ctl")
        self._data, self._log = str(directory / "data"), str(directory / "log")
        initdb = _postgres_binary("initdb")
        _run([initdb, "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._options += f" -c unix_socket_directories='{directory}'"

    @property
    def url(self) -> str:
        """Of the maintenance database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [self._pg_ctl, "-D", self._data, "-l", self._log, "-w", "-t", str(START_SECONDS)]
        _run([*command, "-o", self._options, "start"])

    def stop(self, mode: str = "fast") -> None:
        """``fast`` ends every connection; ``immediate`` is a crash: it recovers from its log at the next start."""
        _run([self._pg_ctl, "-D", self._data, "-m", mode, "-w", "stop"])


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Started, and stopped in the end. Raises `tests.temporary_servers.NoBinary`."""
    with _private_directory() as directory:
        server = OwnPostgres(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
