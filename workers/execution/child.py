"""The child process in which jobs are executed: ``python -m workers.execution.child``.

One JSON line ``{"order", "kind", "specs", "backend", "log"}`` on standard input is one order: mostly one job, or the
runs of a wave; ``log`` is what its log lines carry. The answers are JSON lines ``{"order", "member", ...}`` with
``{"progress": ...}``, ``{"metrics": [...]}`` of a full run, and, once for each member, ``{"result": ...}`` or
``{"failure": {"code", "detail", "retryable"}}``. A line ``{"order", "cancel": member}`` takes a member out of the
order under way, and ``{"order", "stop": true}`` (or SIGTERM, which a cluster may send to every process) ends its
training with a checkpoint and the failure ``stopped``. Between them ``{"alive": true}`` comes every second. The
process then waits for the next order, because importing torch costs seconds. It knows no database. It ends with its
parent: at the end of standard input, even in the middle of a job.
"""

import json
import logging
import math
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TextIO

from proxy_models.text.data_roots import reading_below
from store.logs import bound, configure_logging
from store.settings import Settings
from workers.claims.failures import Failure
from workers.jobs import CHOOSE_WAVE, kind_named, training

ALIVE_SECONDS = 1.0

log = logging.getLogger("mixwright.child")


def main() -> None:
    """Serve orders until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business, which then ends this one
    answers = _Answers(_claim_standard_output())
    configure_logging(Settings())
    asked = _Asked()
    signal.signal(signal.SIGTERM, lambda *_: asked.stopped.add(asked.under_way))
    orders = _orders(asked)
    threading.Thread(target=_tell_alive, args=(answers,), name="alive", daemon=True).start()
    while True:
        order = orders.get()
        asked.under_way = order["order"]
        with bound(**order.get("log", {})):
            Order(order, answers, asked).serve()


def _claim_standard_output() -> TextIO:
    """Keep the original for answers and send what anything else prints to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


class _Answers:
    """The lines to the parent, whole although two threads write them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def write(self, message: dict[str, Any]) -> None:
        line = json.dumps(_finite(message), allow_nan=False) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


def _tell_alive(answers: _Answers) -> None:
    """So that the parent can tell a long job from a process that was stopped or hangs."""
    while True:
        answers.write({"alive": True})
        time.sleep(ALIVE_SECONDS)


@dataclass
class _Asked:
    """What is wanted of orders: those ``stopped``, the members ``cancelled`` of them; and which is under way."""

    under_way: int = 0
    stopped: set[int] = field(default_factory=set)
    cancelled: set[tuple[int, int]] = field(default_factory=set)


def _orders(asked: _Asked) -> queue.Queue[dict[str, Any]]:
    """The orders as they come; what is said about them later is noted in ``asked``."""
    orders: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "cancel" in message:
                asked.cancelled.add((message["order"], message["cancel"]))
            elif "stop" in message:
                asked.stopped.add(message["order"])
            else:
                orders.put(message)
        os._exit(0)  # the parent is gone, and what runs here belongs to nobody

    threading.Thread(target=read, name="orders", daemon=True).start()
    return orders


class Order:
    """One order under way: its jobs tell it what becomes of them, by their numbers in it; one alone is number 0."""

    def __init__(self, order: dict[str, Any], answers: _Answers, asked: _Asked) -> None:
        self.number: int = order["order"]
        self.kind: str = order["kind"]
        self.specs: list[dict[str, Any]] = order["specs"]
        self.backend: str | None = order["backend"]
        self.answers, self._asked = answers, asked
        self.unanswered = set(range(len(self.specs)))

    def serve(self) -> None:
        """Do the jobs; what goes wrong outside of any of them is the failure of all that are not done."""
        try:
            asked = self.kind == CHOOSE_WAVE
            reading, *_ = [(spec["run"] if asked else spec).pop("reading", None) for spec in self.specs]
            with reading_below(**reading) if reading else reading_below(None):
                if asked:
                    self.succeeded(0, training.choose_wave(self.specs[0]))
                elif (kind := kind_named(self.kind)) is training:
                    training.train_runs(self.specs, self.backend, self)
                else:
                    self.succeeded(0, kind.execute(self.specs[0], partial(self.progress, 0)))
        except Exception as error:  # the edge of the worker: whatever went wrong is recorded with the job
            for member in sorted(self.unanswered):
                self.failed(member, error)

    def progress(self, member: int, progress: dict[str, Any]) -> None:
        """Show how far it is."""
        self._answer(member, {"progress": progress})

    def measured(self, member: int, metrics: list[dict[str, Any]]) -> None:
        """Have what was measured on the way stored, as `store.series.keep_metrics` takes it."""
        if metrics:
            self._answer(member, {"metrics": metrics})

    def succeeded(self, member: int, result: dict[str, Any]) -> None:
        """Its result."""
        self._answer(member, {"result": result})
        self.unanswered.discard(member)

    def failed(self, member: int, error: Exception) -> None:
        """Why there is none."""
        failure = Failure.of(error)
        if failure.code == "internal_error":
            log.error("%s", self.kind, exc_info=error)
        self._answer(member, {"failure": asdict(failure)})
        self.unanswered.discard(member)

    def cancelled(self, member: int) -> bool:
        """Whether it should end without a result."""
        return (self.number, member) in self._asked.cancelled

    def stopping(self) -> bool:
        """Whether all of them should end with a checkpoint: their worker is stopping."""
        return self.number in self._asked.stopped

    def _answer(self, member: int, message: dict[str, Any]) -> None:
        self.answers.write({"order": self.number, "member": member, **message})


def _finite(value: Any) -> Any:
    """The same with null for what is no number: neither JSON nor PostgreSQL has a NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


if __name__ == "__main__":
    main()
