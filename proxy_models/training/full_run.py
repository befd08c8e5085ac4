"""The program ``torchrun`` starts for a full training run: ``python -m proxy_models.training.full_run ORDER.json``.

``ORDER.json`` is ``{"run", "engine"?, "artifact_store"?, "reading"?}``: the run as `local_order` takes it, of
`Engine` what is not its default, and what `using_store` and `reading_below` take. Everything that becomes of the run
is in its directory, which all machines see: checkpoints, ``progress.json`` (of the first process, about once a
second), ``metrics.jsonl`` (what is measured on the way), and at the end ``model/`` and ``result.json``, or
``failure.json`` with ``{"code", "detail", "retryable"}``; `run_files.Followed` reads them meanwhile. Started again it
goes on from its last checkpoint, by however many processes. SIGTERM, as a scheduler sends it some time before it
kills, ends it with a checkpoint (status 75).
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from proxy_models.errors import InvalidSpec, ProxyError
from proxy_models.storage import write_json
from proxy_models.stores.current import using_store
from proxy_models.text.data_roots import reading_below
from proxy_models.training.distributed import Engine
from proxy_models.training.processes import Processes, joined
from proxy_models.training.run_files import FAILURE, METRICS, PROGRESS, add_lines
from proxy_models.training.run_record import Metric, RunProgress, RunResult
from proxy_models.training.run_spec import RunSpec, local_order
from proxy_models.training.wave import WaveOptions, train_wave

PARENT_SECONDS = 0.2
FAILED, TRY_AGAIN = 1, 75
"""How the program ends where there is no result; 75 is what ``sysexits.h`` calls a temporary failure."""


def main(order_file: str) -> int:
    """Train, or go on; answers the exit status."""
    if "LOCAL_RANK" in os.environ:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    reading = order.get("reading") or {}
    with (
        using_store(order.get("artifact_store")),
        reading_below(reading.get("roots"), reading.get("own", ())),
    ):
        try:
            spec = RunSpec.from_dict(local_order(order["run"]))
        except ProxyError as error:
            return _failed(Path(order["run"]["directory"]), error, os.environ.get("RANK", "0") == "0")
        with joined(spec.device.partition(":")[0]) as (processes, device):
            try:
                train(replace(spec, device=device), engine_of(order.get("engine") or {}, processes))
            except ProxyError as error:
                return _failed(spec.directory, error, processes.is_first)
    return 0


def _failed(directory: Path, error: ProxyError, is_first: bool) -> int:
    """Tell why there is no result; answers the exit status."""
    if is_first:
        told = {"code": error.code, "detail": str(error), "retryable": error.retryable}
        write_json(directory / FAILURE, told)
    print(f"{error.code}: {error}", file=sys.stderr)
    return TRY_AGAIN if error.retryable else FAILED


def _end_with(parent: int) -> None:
    """``torchrun`` gives each process a session of its own: killed, it would leave them training behind its back."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(FAILED)


def engine_of(settings: Mapping[str, Any], processes: Processes) -> Engine:
    """The engine; raises `InvalidSpec` naming a setting that is unknown."""
    known = {field.name for field in fields(Engine)} - {"processes"}
    for name in settings:
        if name not in known:
            raise InvalidSpec(
                f"unknown setting engine.{name}; there are {', '.join(sorted(known))}", f"engine.{name}"
            )
    return Engine(processes, **settings)


def train(spec: RunSpec, engine: Engine) -> RunResult:
    """Train and evaluate as one of the processes of the engine; raises what `train_run` raises."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))

    def progress(_run: int, told: RunProgress) -> None:
        if engine.processes.is_first:
            write_json(spec.directory / PROGRESS, told.to_dict())

    def measured(_run: int, metrics: Sequence[Metric]) -> None:
        if engine.processes.is_first:
            add_lines(spec.directory / METRICS, [asdict(metric) for metric in metrics])

    options = WaveOptions(engine=engine, progress=progress, measured=measured, stopping=lambda: bool(stopped))
    (outcome,) = train_wave([spec], options)
    if isinstance(outcome, ProxyError):
        raise outcome
    return outcome


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        status
    )  # without the end of gloo's threads, which now and then is an abort; everything is on the disk
