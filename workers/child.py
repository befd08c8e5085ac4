"""The child process in which jobs are executed: ``python -m workers.child``.

One JSON line ``{"kind", "spec"}`` on standard input is one job; the answers are JSON lines ``{"progress": ...}`` and
at last ``{"result": ...}`` or ``{"failure": {"code", "detail", "retryable"}}``. The process then waits for the
next job, because importing torch costs seconds. It knows no database. It ends with its parent: at the end of
standard input, even in the middle of a job.
"""

import json
import math
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from workers.failures import Failure
from workers.jobs import KINDS


def main() -> None:
    """Serve jobs until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business, which then ends this one
    answers = _claim_standard_output()
    orders = _orders()
    while True:
        _serve(orders.get(), answers)


def _claim_standard_output() -> TextIO:
    """Keep the original for answers and send what anything else prints to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _orders() -> queue.Queue[dict[str, Any]]:
    orders: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(json.loads(line))
        os._exit(0)  # the parent is gone, and what runs here belongs to nobody

    threading.Thread(target=read, name="orders", daemon=True).start()
    return orders


def _serve(order: dict[str, Any], answers: TextIO) -> None:
    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(_finite(message), allow_nan=False) + "\n")
        answers.flush()

    try:
        result = KINDS[order["kind"]].execute(order["spec"], lambda progress: answer({"progress": progress}))
    except Exception as error:  # the edge of the worker: whatever went wrong is recorded with the job
        failure = Failure.of(error)
        if failure.code == "internal_error":
            traceback.print_exc()
        answer({"failure": {"code": failure.code, "detail": failure.detail, "retryable": failure.retryable}})
    else:
        answer({"result": result})


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
