"""The process between a worker's child and the operator's program: ``python -m workers.launchers.runner``.

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
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0)
    while block := os.read(output.fileno(), 65_536):
        if log.tell() + len(block) > LOG_LIMIT_BYTES:
            log.close()
            path.replace(path.with_name("log.1"))
            log = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0)
        log.write(block)
    log.close()


if __name__ == "__main__":
    main()
