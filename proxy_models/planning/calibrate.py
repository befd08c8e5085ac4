"""Measure how fast each backend trains a shape on a device.

`table_for` is what a worker asks before it trains: the device's table, measured where it has no answer yet.

``python -m proxy_models.planning.calibrate ORDER`` measures, saves, and prints a line of JSON for each rate;
``ORDER`` is the JSON of a `CalibrationOrder`. The command line of the service, which has no torch, starts it.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from proxy_models.backends import COMPILED, ONE_BY_ONE, STACKED_COMPILED, available, build
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import ProxyError
from proxy_models.planning.calibration import (
    Calibration,
    CalibrationOrder,
    Rate,
    save,
    save_locked,
    shape_of,
    table_lock,
    table_of,
)
from proxy_models.planning.memory import check_fits, largest_wave
from proxy_models.storage import locked
from proxy_models.torch_device import free_memory, memory_of, this_device
from proxy_models.training.step import keep_freed_memory

MEMBERS = (4, 8, 16)
REPEATS = 5


def _nothing(rate: Rate) -> None:
    pass


def calibrate(
    model: ModelConfig,
    training: TrainingConfig,
    device: str = "cpu",
    members: Sequence[int] = MEMBERS,
    backends: Sequence[str] | None = None,
    measured: Callable[[Rate], None] = _nothing,
) -> Calibration:
    """Measure every backend that runs here (or ``backends``) at the shape of ``training``, stacks of ``members``.

    Takes seconds; compiled backends add 20 s a shape the first time on a machine. Stacks that do not fit into the
    free memory are left out; raises `NotEnoughMemory` where not even one model fits. Measured by the clock, for that
    is what a swarm takes: leave the device alone meanwhile. ``measured`` is told each rate as it is found.
    """
    rates = []
    free = free_memory(device)
    check_fits(model, training, 1, device, free)
    fit = largest_wave(model, training, device, free)
    for name in available(device) if backends is None else backends:
        sizes = [1] if name in (ONE_BY_ONE, COMPILED) else [size for size in members if size <= fit]
        for size in sizes[:1] if name == STACKED_COMPILED else sizes:  # each size is compiled anew
            rates.append(_measure(name, model, training, device, size))
            measured(rates[-1])
    return Calibration(this_device(device), memory_of(device), tuple(rates))


def _measure(name: str, model: ModelConfig, training: TrainingConfig, device: str, members: int) -> Rate:
    started = time.perf_counter()
    backend = build(name, model, [training] * members, device)
    size = (members, training.batch_rows, training.sequence_length + 1)
    batches = np.random.default_rng(0).zipf(1.2, size) % model.vocabulary_size
    rates = [1e-3] * members
    backend.learn(batches, rates)
    startup = time.perf_counter() - started
    backend.learn(batches, rates)
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        backend.learn(batches, rates)  # ends by reading the losses: an accelerator is waited for
        times.append(time.perf_counter() - began)
    tokens = members * training.tokens_per_step
    shape = shape_of(model, training.precision)
    return Rate(shape, training.tokens_per_step, name, members, tokens / statistics.median(times), startup)


def table_for(
    model: ModelConfig,
    training: TrainingConfig,
    device: str,
    directory: Path,
    backends: Sequence[str] | None = None,
) -> Calibration:
    """The device's table, with rates of every one of ``backends`` (None: all that run here) near this question.

    What is missing is measured and saved. Of several processes that ask at once one measures and the others wait for
    it, so that they do not slow each other's measurements. Raises `NotEnoughMemory`, `StorageFailed`.
    """
    here = this_device(device)
    wanted = available(device) if backends is None else tuple(backends)

    def lacking(table: Calibration | None) -> list[str]:
        near = () if table is None else table.near(model, training)
        return [name for name in wanted if name not in {rate.backend for rate in near}]

    table = table_of(directory, here)
    if table is not None and not lacking(table):
        return table
    with locked(table_lock(directory, here)):
        table = table_of(directory, here)
        if table is not None and not lacking(table):
            return table  # measured while this process waited
        keep_freed_memory()  # as a run does before it trains
        # Rates at another length of step would be hidden by new ones that are nearer: all are measured together.
        near = () if table is None else table.near(model, training)
        same_step = all(rate.tokens_per_step == training.tokens_per_step for rate in near)
        backends = lacking(table) if same_step else wanted
        return save_locked(directory, calibrate(model, training, device, backends=backends))


def main() -> None:
    """Carry out the order; a problem is the last line, ``{"problem": ...}``, and the exit status 1."""
    order = CalibrationOrder(**json.loads(sys.argv[1]))
    try:
        if order.device.startswith("cuda") and not torch.cuda.is_available():
            raise ProxyError("torch finds no GPU here; --device cpu measures the processor", "device")
        carry_out(order)
    except (ProxyError, RuntimeError) as error:  # torch's own complaints about a device are RuntimeErrors
        _say({"problem": str(error)})
        sys.exit(1)


def carry_out(order: CalibrationOrder) -> None:
    """Measure size after size as a worker would train it, on ``order.threads`` threads, and save each."""
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    names = available(order.device, order.compiled)
    _say({"device": asdict(this_device(order.device))})
    for size, model in order.models().items():

        def measured(rate: Rate, size: str = size) -> None:
            _say({"size": size, "rate": asdict(rate)})

        table = calibrate(model, order.training(), order.device, backends=names, measured=measured)
        save(Path(order.directory), table)


def _say(line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
