"""Evaluates snapshots of models while another process trains them.

``python -m proxy_models.evaluation.evaluator ORDER SNAPSHOT`` is given the descriptors of two files. The
first holds JSON that
says what is evaluated: ``{"spec", "backend", "members", "tasks", "device_name"}``. A JSON line ``{"step",
"members"}`` on standard input says that the second holds the parameters of these members, and is answered by a line
``{"step", "found"}`` with what every task measures on each model. No task or shard is opened. What fails, fails the
process: whoever started it then evaluates by itself. It has nothing to save, so it is ended by SIGKILL, and ends with
its parent, at the end of standard input, even in the middle of an evaluation.
"""

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from proxy_models.export.nameless_file import content_of

if TYPE_CHECKING:
    from proxy_models.backends.backend import Backend
    from proxy_models.training.run_spec import RunSpec

Document = dict[str, Any]


def main() -> None:
    """Serve until standard input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the parent, which may still need an answer
        signal.signal(number, signal.SIG_IGN)
    snapshots = _lines()  # read, and their end heard of, from now on: importing torch takes seconds
    order, snapshot = map(int, sys.argv[1:])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where anything else may print
    for answer in _evaluations(json.loads(content_of(order)), snapshots, snapshot):
        answers.write(json.dumps(answer) + "\n")  # NaN and all: that is how it is known that a model diverged
        answers.flush()


def _lines() -> "queue.Queue[Document]":
    lines: queue.Queue[Document] = queue.Queue()

    def read() -> None:
        try:
            for line in sys.stdin:
                lines.put(json.loads(line))
        finally:  # the parent is gone, perhaps in the middle of a line, and nobody waits for an answer
            os._exit(0)

    threading.Thread(target=read, name="snapshots", daemon=True).start()
    return lines


def _evaluations(order: Document, snapshots: "queue.Queue[Document]", descriptor: int) -> Iterator[Document]:
    import torch
    from safetensors.torch import load

    from proxy_models.evaluation.evaluator_order import tasks_from_json
    from proxy_models.training.allocator import keep_freed_memory
    from proxy_models.training.run_spec import RunSpec

    spec = RunSpec.from_dict(order["spec"])
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    models = _models(spec, order)
    tasks = tasks_from_json(order["tasks"])
    while True:
        snapshot = snapshots.get()
        tensors = load(content_of(descriptor))
        for member in snapshot["members"]:
            for name, parameter in models.parameters(member).items():
                parameter.copy_(tensors[f"{member}.{name}"])
        yield {"step": snapshot["step"], "found": models.evaluate(tasks)}


def _models(spec: "RunSpec", order: Document) -> "Backend":
    """As many models as are trained, on the same backend: how a batch is cut depends on their number."""
    from proxy_models.backends.registry import build
    from proxy_models.torch_device import this_device

    if (name := this_device(spec.device).name) != order["device_name"]:
        raise RuntimeError(f"{name} may round otherwise than the {order['device_name']} that trains")
    return build(order["backend"], spec.model, [spec.training] * order["members"], spec.device)


if __name__ == "__main__":
    main()
