"""Measure how fast each backend trains a shape on a device.

`table_for` is what a worker asks before it trains: the device's table, measured where it has no answer yet.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from proxy_models.backends.backend import COMPILED, ONE_BY_ONE, STACKED_COMPILED
from proxy_models.backends.registry import available, build
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.planning.calibration import Calibration, Rate, shape_of
from proxy_models.planning.calibration_files import locked, save_locked, table_of
from proxy_models.planning.memory import check_fits, largest_wave
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
    with locked(directory, here):
        table = table_of(directory, here)
        if table is not None and not lacking(table):
            return table  # measured while this process waited
        keep_freed_memory()  # as a run does before it trains
        # Rates at another length of step would be hidden by new ones that are nearer: all are measured together.
        near = () if table is None else table.near(model, training)
        same_step = all(rate.tokens_per_step == training.tokens_per_step for rate in near)
        backends = lacking(table) if same_step else wanted
        return save_locked(directory, calibrate(model, training, device, backends=backends))
