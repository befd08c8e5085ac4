"""The worker's end of a child process: orders in, messages out."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from store.lifeline import ONE_THREAD, how_it_ended

STOP_SECONDS = 5.0
READ_SECONDS = 120.0
"""How long a child may take until it has read an order; one that has just been started imports first."""


class ChildDied(RuntimeError):
    """The child ended without an answer; ``detail`` says how."""

    def __init__(self, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(f"the process that ran the job ended {how_it_ended(exit_code)}")


class Child:
    """One warm child process, started when first needed and again after it died or was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._order = 0
        self._heard = 0.0

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    @property
    def silence(self) -> float:
        """Seconds since it was last heard of; one that is alive tells so every second."""
        return time.monotonic() - self._heard

    def order(
        self,
        kind: str,
        specs: Sequence[dict[str, Any]],
        backend: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Give it jobs to do at once, with the ``fields`` its log lines carry.

        Mostly it is one; several are runs to train on ``backend``. Raises ChildDied.
        """
        self._running()
        self._order += 1
        order = {"order": self._order, "kind": kind, "specs": list(specs), "backend": backend}
        self._write({**order, "log": dict(fields or {})})

    def cancel(self, member: int) -> None:
        """Have it go on without one of the jobs of its order. Raises ChildDied."""
        self._write({"order": self._order, "cancel": member})

    def stop(self) -> None:
        """Ask it to end the training of its order with a checkpoint. Raises ChildDied."""
        self._write({"order": self._order, "stop": True})

    def message(self, timeout: float) -> dict[str, Any] | None:
        """The next one about its order, or None when ``timeout`` seconds brought none. Raises ChildDied."""
        try:
            message = self._messages.get(timeout=timeout)
        except queue.Empty:
            return None
        if message is None:
            raise ChildDied(self._forget())
        # What it still had to say about a cancelled job of an earlier order is nobody's business.
        return message if message["order"] == self._order else None

    def _write(self, line: dict[str, Any]) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        # A pipe to a process that was stopped fills up and never empties.
        guard = threading.Timer(READ_SECONDS, process.kill)
        guard.start()
        try:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise ChildDied(self._forget()) from error
        finally:
            guard.cancel()

    def kill(self) -> None:
        """End it now, whatever it does; everything it has finished is on disk or with its worker."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def _running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._forget()
        if self._process is None:
            self._messages = queue.Queue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.execution.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **ONE_THREAD},
            )
            assert self._process.stdout is not None
            self._heard = time.monotonic()
            reader = threading.Thread(
                target=self._read, args=(self._process.stdout, self._messages), name="child", daemon=True
            )
            reader.start()

    def _read(self, stream: IO[str], messages: queue.Queue[dict[str, Any] | None]) -> None:
        try:
            for line in stream:
                self._heard = time.monotonic()
                message = json.loads(line)
                if "alive" not in message:
                    messages.put(message)
        except (ValueError, OSError):
            pass  # half a line from a killed process, or the stream was closed with it
        messages.put(None)

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
