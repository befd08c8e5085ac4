"""The worker's end of a child process: orders in, messages out."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

# One thread a process: two OpenMP threads on two busy cores were seen to take 8.3 s for a step of 0.5 s.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
}
STOP_SECONDS = 5.0


class ChildDied(RuntimeError):
    """The child ended without an answer; ``detail`` says how."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with status {exit_code}"
        super().__init__(f"the process that ran the job ended {how}")


class Child:
    """One warm child process, started when first needed and again after it died or was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def order(self, kind: str, spec: dict[str, Any]) -> None:
        """Give it a job. Raises ChildDied when it cannot take one."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"kind": kind, "spec": spec}) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildDied(self._forget()) from error

    def message(self, timeout: float) -> dict[str, Any] | None:
        """Its next message, or None when ``timeout`` seconds brought none. Raises ChildDied."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise ChildDied(self._forget())
        return message

    def kill(self) -> None:
        """End it now, whatever it does; everything it has finished is on disk or with its worker."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is not None:
            self._forget()
        if self._process is None:
            self._messages = queue.Queue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **_ENVIRONMENT},
            )
            assert self._process.stdout is not None
            reader = threading.Thread(
                target=_read, args=(self._process.stdout, self._messages), name="child", daemon=True
            )
            reader.start()
        return self._process

    def _forget(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            exit_code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            exit_code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                _close(stream)
        return exit_code


def _close(stream: IO[str]) -> None:
    with suppress(BrokenPipeError):  # an order the child did not live to read
        stream.close()


def _read(stream: IO[str], messages: queue.Queue[dict[str, Any] | None]) -> None:
    try:
        for line in stream:
            messages.put(json.loads(line))
    except (ValueError, OSError):
        pass  # half a line from a killed process, or the stream was closed with it
    messages.put(None)
