"""PostgreSQL and Redis started for one test session from the binaries on this machine, and stopped again."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

DEBIAN_POSTGRES = "/usr/lib/postgresql"
UNPRIVILEGED = ("postgres", "nobody")
START_SECONDS = 60


class NoBinary(RuntimeError):
    """The server is not installed here, or cannot be started by this user."""


@contextmanager
def temporary_postgres() -> Iterator[str]:
    """A fresh cluster on a socket in a private directory: no port, so nobody else's server is in the way."""
    initdb, pg_ctl = _postgres_binary("initdb"), _postgres_binary("pg_ctl")
    with _private_directory() as directory:
        data = str(directory / "data")
        _run([initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
        options = f"-c listen_addresses='' -c unix_socket_directories='{directory}' -c fsync=off"
        log = str(directory / "log")
        _run([pg_ctl, "-D", data, "-l", log, "-w", "-t", str(START_SECONDS), "-o", options, "start"])
        try:
            yield f"postgresql+psycopg://postgres@/postgres?host={directory}"
        finally:
            _run([pg_ctl, "-D", data, "-m", "immediate", "-w", "stop"])


@contextmanager
def temporary_redis() -> Iterator[str]:
    """An empty Redis on a free port of the loopback address, keeping nothing on disk."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        raise NoBinary("neither redis-server nor valkey-server is on PATH")
    with _private_directory() as directory:
        port = _free_port()
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(directory)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **_unprivileged())
        try:
            # The client tries again until the server listens; a server that died answers no ping at all.
            retry = Retry(ConstantBackoff(0.1), START_SECONDS * 10)
            client = redis.Redis(
                port=port, retry=retry, retry_on_error=[redis.ConnectionError, redis.BusyLoadingError]
            )
            client.ping()
            client.close()
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _postgres_binary(name: str) -> str:
    installed = sorted(Path(DEBIAN_POSTGRES).glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        raise NoBinary(f"{name} of PostgreSQL is not on PATH")
    return found


@contextmanager
def _private_directory() -> Iterator[Path]:
    # Below the system's own temporary directory: the path of a Unix socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="mixwright-") as name:
        directory = Path(name)
        if user := _user():
            os.chown(directory, user.pw_uid, user.pw_gid)
        yield directory


def _run(command: list[str]) -> None:
    # Output goes to a file: a daemon that inherits a pipe keeps it open, and we would wait for its end.
    with tempfile.TemporaryFile() as output:
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **_unprivileged()
        )
        output.seek(0)
        if ended.returncode != 0:
            raise NoBinary(f"{' '.join(command)} failed: {output.read().decode(errors='replace')[-2000:]}")


def _unprivileged() -> dict[str, Any]:
    """Arguments of a process that must not be root's: PostgreSQL refuses to be."""
    user = _user()
    where: dict[str, Any] = {"cwd": "/"}  # root's own directories cannot be entered
    return where if user is None else where | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _user() -> pwd.struct_passwd | None:
    if os.getuid() != 0:
        return None
    for name in UNPRIVILEGED:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoBinary(f"this is root, and none of the users {UNPRIVILEGED} exists to start a server as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
