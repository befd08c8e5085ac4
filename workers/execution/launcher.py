"""The process between a worker's child and the operator's program: ``python -m workers.execution.launcher``.

One JSON line on standard input is the order; the rest of standard input is a lifeline. However the child ends
(cancelled, killed, crashed), the lifeline breaks, and the program's whole process group gets SIGTERM and, after
``stop_seconds``, SIGKILL. One runner a launch directory: the next attempt waits until this one has let go.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

LOG_LIMIT_BYTES = 10 * 2**20
"""Of ``log``; what came before is kept as ``log.1``, no longer."""
POLL_SECONDS = 0.1


def main() -> None:
    """Run the program, and write its exit status on standard output as JSON."""
    order = json.loads(sys.stdin.readline())
    gone = threading.Event()
    threading.Thread(target=_watch_lifeline, args=(gone,), daemon=True).start()
    directory = Path(order["directory"])
    with (directory / "lock").open("wb") as lock:
        while not _take(lock):
            if gone.wait(POLL_SECONDS):
                return
        status = _run(order, directory, gone)
    print(json.dumps({"exit_status": status}), flush=True)


def _run(order: dict, directory: Path, gone: threading.Event) -> int:
    process = subprocess.Popen(
        order["arguments"],
        cwd=directory,
        env=order["environment"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    writer = threading.Thread(target=_write_log, args=(process.stdout, directory / "log"), daemon=True)
    writer.start()
    while process.poll() is None and not gone.wait(POLL_SECONDS):
        pass
    if process.poll() is None:
        _signal(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + order["stop_seconds"]
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    _signal(process.pid, signal.SIGKILL)  # the program, or what it left behind
    status = process.wait()
    writer.join(timeout=5.0)
    return status


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(group, number)


def _take(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _watch_lifeline(gone: threading.Event) -> None:
    sys.stdin.read()
    gone.set()


def _write_log(output: IO[bytes], path: Path) -> None:
    """Copy what the program says, which has to be read whatever becomes of it: a full pipe would stop the program."""
    log = _Log(path)
    with suppress(OSError):
        log.write(b"")  # there is a log before the program says anything
    while block := os.read(output.fileno(), 65_536):
        with suppress(OSError):  # a full disk costs lines of the log
            log.write(block)
    log.close()


class _Log:
    """A file of `LOG_LIMIT_BYTES` at most, and the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def write(self, block: bytes) -> None:
        """Append; raises OSError, and then the next call tries again."""
        if self._file is not None and self._file.tell() + len(block) > LOG_LIMIT_BYTES:
            self.close()
            self._path.replace(self._path.with_name("log.1"))
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._file.write(block)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None


if __name__ == "__main__":
    main()
