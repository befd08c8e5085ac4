"""Which backend trains a swarm soonest on a device: measured there, not guessed.

`calibrate` measures, the caller keeps the table (`Calibration.to_dict`), `choose` reads it.
"""

import math
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from proxy_models.backends.backend import COMPILED, ONE_BY_ONE, STACKED_COMPILED
from proxy_models.backends.registry import available, build
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec, NotCalibrated
from proxy_models.memory import LOGITS_BYTES, bytes_per_model, check_fits, free_memory, largest_wave

MEMBERS = (4, 8, 16)
REPEATS = 5
FARTHEST = 2.0
"""A measurement at up to this many times more or fewer tokens per step speaks for a question."""


def device_name(device: str) -> str:
    """What the numbers of a table belong to: the processor's or accelerator's own name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - a kernel file, not a path of ours
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _shape(model: ModelConfig) -> str:
    """Two configurations of one shape cost the same, whatever their names and rates."""
    tied = "tied" if model.tied_embeddings else "untied"
    return f"{model.layers}x{model.width}x{model.heads}x{model.ffn} {model.vocabulary_size} {tied}"


@dataclass(frozen=True)
class Rate:
    """Tokens per second of all ``members`` together, and the seconds before the first step is done."""

    shape: str
    tokens_per_step: int
    backend: str
    members: int
    tokens_per_second: float
    startup_seconds: float


@dataclass(frozen=True)
class Calibration:
    """The rates measured on one device with one version of PyTorch, on ``threads`` threads."""

    device: str
    torch_version: str
    threads: int
    rates: tuple[Rate, ...]

    def __add__(self, other: "Calibration") -> "Calibration":
        """Both tables; of two measurements of one thing the other's holds. Raises `InvalidSpec` across devices."""
        if (self.device, self.torch_version, self.threads) != (
            other.device,
            other.torch_version,
            other.threads,
        ):
            raise InvalidSpec(
                "calibrations of different devices, versions or threads do not add up", "device"
            )
        found = {
            (rate.shape, rate.tokens_per_step, rate.backend, rate.members): rate
            for rate in (*self.rates, *other.rates)
        }
        return Calibration(self.device, self.torch_version, self.threads, tuple(found.values()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "rates": [asdict(rate) for rate in self.rates]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Calibration":
        """What `to_dict` gave; raises `InvalidSpec` where it is something else."""
        try:
            rates = tuple(Rate(**rate) for rate in content["rates"])
            rest = {field.name: content[field.name] for field in fields(cls) if field.name != "rates"}
            return cls(**rest, rates=rates)
        except (KeyError, TypeError) as error:
            raise InvalidSpec(f"not a calibration: {error}", "calibration") from error


def calibrate(
    model: ModelConfig,
    training: TrainingConfig,
    device: str = "cpu",
    members: Sequence[int] = MEMBERS,
    backends: Sequence[str] | None = None,
) -> Calibration:
    """Measure every backend that runs here (or ``backends``) at the shape of ``training``, stacks of ``members``.

    Takes seconds; compiled backends add 20 s a shape the first time on a machine. Stacks that do not fit into the
    free memory are left out. Measured by the clock, for that is what a swarm takes: leave the device alone meanwhile.
    """
    rates = []
    fit = largest_wave(model, training, device, free_memory(device))
    for name in available(device) if backends is None else backends:
        sizes = [1] if name in (ONE_BY_ONE, COMPILED) else [size for size in members if size <= fit]
        for size in sizes[:1] if name == STACKED_COMPILED else sizes:  # each size is compiled anew
            rates.append(_measure(name, model, training, device, size))
    return Calibration(device_name(device), torch.__version__, torch.get_num_threads(), tuple(rates))


def _measure(name: str, model: ModelConfig, training: TrainingConfig, device: str, members: int) -> Rate:
    started = time.perf_counter()
    backend = build(name, model, [training] * members, device)
    shape = (members, training.batch_rows, training.sequence_length + 1)
    batches = np.random.default_rng(0).zipf(1.2, shape) % model.vocabulary_size
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
    return Rate(
        _shape(model), training.tokens_per_step, name, members, tokens / statistics.median(times), startup
    )


@dataclass(frozen=True)
class Swarm:
    """What is to be trained: ``n`` models of one shape."""

    model: ModelConfig
    training: TrainingConfig
    n: int


@dataclass(frozen=True)
class Choice:
    """How to train a swarm: waves of up to ``members`` models on ``backend``; ``seconds`` is what that should take.

    ``waves`` are their sizes; the last may be smaller and is counted at the same rate for each model.
    """

    backend: str
    members: int
    waves: tuple[int, ...]
    seconds: float
    needed_bytes: int


def choose(
    swarm: Swarm, calibration: Calibration, device: str = "cpu", free_bytes: int | None = None
) -> Choice:
    """The measured way that trains the swarm soonest among those that fit into memory, compiling included.

    Raises `NotCalibrated` where the table is another device's, or has nothing of this shape at up to `FARTHEST` times
    more or fewer tokens per step; `NotEnoughMemory` where not even one model fits.
    """
    if swarm.n < 1:
        raise InvalidSpec(f"a swarm of {swarm.n} models", "n")
    here = (device_name(device), torch.__version__)
    if (calibration.device, calibration.torch_version) != here:
        raise NotCalibrated(
            f"the table was measured on {calibration.device} with PyTorch {calibration.torch_version}, this is "
            f"{here[0]} with {here[1]}; calibrate here"
        )
    free_bytes = free_memory(device) if free_bytes is None else free_bytes
    check_fits(swarm.model, swarm.training, 1, device, free_bytes)
    fit = largest_wave(swarm.model, swarm.training, device, free_bytes)
    usable = [rate for rate in _nearest(swarm, calibration) if rate.members <= min(fit, swarm.n)]
    if not usable:
        raise NotCalibrated(
            f"nothing measured for {swarm.model.name} ({_shape(swarm.model)}) near "
            f"{swarm.training.tokens_per_step} tokens per step; calibrate that shape"
        )
    best = min(usable, key=lambda rate: _seconds(swarm, rate))
    whole, rest = divmod(swarm.n, best.members)
    needed = best.members * bytes_per_model(swarm.model, swarm.training)
    return Choice(
        best.backend,
        best.members,
        (best.members,) * whole + ((rest,) if rest else ()),
        _seconds(swarm, best),
        needed + LOGITS_BYTES[torch.device(device).type],
    )


def _nearest(swarm: Swarm, calibration: Calibration) -> list[Rate]:
    """The rates of the shape at the measured tokens per step that are nearest."""
    same = [rate for rate in calibration.rates if rate.shape == _shape(swarm.model)]

    def distance(rate: Rate) -> float:
        return abs(math.log(rate.tokens_per_step / swarm.training.tokens_per_step))

    nearest = min(map(distance, same), default=math.inf)
    return [rate for rate in same if distance(rate) == nearest and nearest <= math.log(FARTHEST) + 1e-12]


def _seconds(swarm: Swarm, rate: Rate) -> float:
    """Seconds of the whole swarm in one process, the first step's preparation once."""
    tokens = swarm.n * swarm.training.steps * swarm.training.tokens_per_step
    return rate.startup_seconds + tokens / rate.tokens_per_second
