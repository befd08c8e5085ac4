"""Rates measured on a device, their tables on disk, and which backend by them trains a swarm soonest. Free of torch.

`proxy_models.planning.calibrate` measures, `choose` reads a table. A table is one JSON file for each device, version
of PyTorch and number of threads. Several processes may read and write at once: a writer holds the file's lock while
it merges.
"""

import functools
import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from proxy_models.config import DEFAULT_VOCABULARY_SIZE, FLOAT32, ModelConfig, TrainingConfig, size_named
from proxy_models.errors import InvalidSpec, NotCalibrated, ProxyError
from proxy_models.planning.memory import bytes_per_model, check_fits, largest_wave, logits_bytes
from proxy_models.storage import locked, storage_errors, write_json
from proxy_models.stores.object_path import file_identity

NOISE = 0.05
"""Two measurements that differ by so little may be the same rate."""
FARTHEST = 2.0
"""A measurement at up to this many times more or fewer tokens per step speaks for a question."""


def shape_of(model: ModelConfig, precision: str = FLOAT32) -> str:
    """Two configurations of one shape and precision cost the same, whatever their names and rates."""
    tied = "tied" if model.tied_embeddings else "untied"
    heads = f"{model.heads}" if model.head_width is None else f"{model.heads}({model.head_width})"
    rounded = "" if precision == FLOAT32 else f" {precision}"
    return f"{model.layers}x{model.width}x{heads}x{model.ffn} {model.vocabulary_size} {tied}{rounded}"


@dataclass(frozen=True)
class Device:
    """What rates belong to: another name, version or number of threads has others.

    Attributes:
        name: the processor's or accelerator's own.
        type: ``cpu`` or ``cuda``.
        torch_version: as ``torch.__version__`` says it.
        threads: a process computes on.
    """

    name: str
    type: str
    torch_version: str
    threads: int

    def __str__(self) -> str:
        return f"{self.name} (PyTorch {self.torch_version}, {self.threads} thread{'s' * (self.threads != 1)})"


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
    """The rates measured on one device, and the bytes of memory it has in all."""

    device: Device
    memory_bytes: int
    rates: tuple[Rate, ...]

    def __add__(self, other: "Calibration") -> "Calibration":
        """Both tables; of two measurements of one thing the other's holds. Raises `InvalidSpec` across devices."""
        if self.device != other.device:
            raise InvalidSpec(
                f"calibrations of {self.device} and {other.device} do not add up: they are different devices, "
                "versions or threads",
                "device",
            )
        rates = {
            (rate.shape, rate.tokens_per_step, rate.backend, rate.members): rate
            for rate in (*self.rates, *other.rates)
        }
        return Calibration(self.device, other.memory_bytes, tuple(rates.values()))

    def near(self, model: ModelConfig, training: TrainingConfig) -> tuple[Rate, ...]:
        """The rates of the shape at the measured tokens per step that are nearest, within `FARTHEST`."""
        shape = shape_of(model, training.precision)
        same = [rate for rate in self.rates if rate.shape == shape]

        def distance(rate: Rate) -> float:
            return abs(math.log(rate.tokens_per_step / training.tokens_per_step))

        nearest = min(map(distance, same), default=math.inf)
        if nearest > math.log(FARTHEST) + 1e-12:
            return ()
        return tuple(rate for rate in same if distance(rate) == nearest)

    @classmethod
    def from_dict(cls, content: Any) -> "Calibration":
        """From its ``asdict``; raises `InvalidSpec` where it is something else."""
        try:
            device = Device(**{field.name: content["device"][field.name] for field in fields(Device)})
            rates = tuple(Rate(**rate) for rate in content["rates"])
            for rate in rates:
                _check_rate(rate)
            return cls(device, int(content["memory_bytes"]), rates)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSpec(f"not a calibration: {type(error).__name__} {error}", "calibration") from error


def _check_rate(rate: Rate) -> None:
    counts = (rate.tokens_per_step, rate.members, rate.tokens_per_second)
    if not all(math.isfinite(number) and number > 0 for number in counts) or not rate.startup_seconds >= 0:
        raise ValueError(f"no such rate: {rate}")


@dataclass(frozen=True)
class SwarmSize:
    """What is to be trained: ``n`` models of one shape."""

    model: ModelConfig
    training: TrainingConfig
    n: int

    @property
    def tokens(self) -> int:
        """That are trained in all."""
        return self.n * self.training.steps * self.training.tokens_per_step


@dataclass(frozen=True)
class WavePlan:
    """How to train a swarm: in waves, as ``rate`` was measured; ``seconds`` is what that should take.

    ``waves`` are their sizes; the last may be smaller and is counted at the same rate for each model.
    """

    rate: Rate
    waves: tuple[int, ...]
    seconds: float
    needed_bytes: int


def choose(
    swarm: SwarmSize, calibration: Calibration, free_bytes: int | None = None, here: Device | None = None
) -> WavePlan:
    """The measured way that trains the swarm soonest among those that fit into memory, compiling included.

    Of ways within `NOISE` of each other the one with the fewest models at once: it needs the least memory, and loses
    the least when a process dies.

    ``free_bytes`` None: all the memory the device has. ``here`` None: the swarm is trained on the table's device.

    Raises `NotCalibrated` where the table is another device's, or has nothing of this shape at up to `FARTHEST` times
    more or fewer tokens per step; `NotEnoughMemory` where not even one model fits.
    """
    if swarm.n < 1:
        raise InvalidSpec(f"a swarm of {swarm.n} models", "n")
    if here is not None and here != calibration.device:
        raise NotCalibrated(f"the table was measured on {calibration.device}, this is {here}; calibrate here")
    device = calibration.device.type
    free_bytes = calibration.memory_bytes if free_bytes is None else free_bytes
    check_fits(swarm.model, swarm.training, 1, device, free_bytes)
    fit = largest_wave(swarm.model, swarm.training, device, free_bytes)
    near = calibration.near(swarm.model, swarm.training)
    usable = [rate for rate in near if rate.members <= min(fit, swarm.n)]
    if not usable:
        raise NotCalibrated(
            f"nothing measured for {swarm.model.name} ({shape_of(swarm.model, swarm.training.precision)}) near "
            f"{swarm.training.tokens_per_step} tokens per step on {calibration.device}; calibrate that shape"
        )
    soonest = min(_seconds(swarm, rate) for rate in usable)
    as_soon = [rate for rate in usable if _seconds(swarm, rate) <= soonest * (1 + NOISE)]
    best = min(as_soon, key=lambda rate: (rate.members, _seconds(swarm, rate)))
    whole, rest = divmod(swarm.n, best.members)
    return WavePlan(
        best,
        (best.members,) * whole + ((rest,) if rest else ()),
        _seconds(swarm, best),
        best.members * bytes_per_model(swarm.model, swarm.training) + logits_bytes(device),
    )


def _seconds(swarm: SwarmSize, rate: Rate) -> float:
    """Seconds of the whole swarm in one process, the first step's preparation once."""
    return rate.startup_seconds + swarm.tokens / rate.tokens_per_second


@dataclass(frozen=True)
class CalibrationOrder:
    """Sizes to be measured at one shape of a step, and the directory of the tables."""

    directory: str
    sizes: Sequence[str]
    sequence_length: int = 128
    batch_rows: int = 8
    vocabulary_size: int = DEFAULT_VOCABULARY_SIZE
    device: str = "cpu"
    compiled: bool = True
    threads: int = 1
    precision: str = FLOAT32

    def models(self) -> dict[str, ModelConfig]:
        """By size; raises `UnknownSize`, `InvalidSpec`."""
        return {name: size_named(name, self.vocabulary_size) for name in self.sizes}

    def training(self, tokens: int | None = None) -> TrainingConfig:
        """So many tokens, None: one step's worth; raises `InvalidSpec`."""
        step = self.sequence_length * self.batch_rows
        tokens = step if tokens is None else tokens
        return TrainingConfig(tokens, self.sequence_length, self.batch_rows, precision=self.precision)


ASIDE = ".unreadable"
"""Added to the name of a file that could not be read when a new one takes its place."""


class UnreadableCalibration(ProxyError):
    """A file holds no calibration; the next one measured takes its place."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read ({reason}); calibrate again, which replaces it")
        self.path = path


@dataclass(frozen=True)
class Calibrations:
    """What a directory holds: the tables, the one written last first, and what was wrong with the other files."""

    tables: tuple[Calibration, ...]
    unreadable: tuple[UnreadableCalibration, ...]


def file_of(directory: Path, device: Device) -> Path:
    """Where the table of a device lies."""
    words = f"{device.name} torch {device.torch_version} {device.threads} threads"
    return directory / f"{re.sub(r'[^a-z0-9.]+', '-', words.lower()).strip('-.')}.json"


def read_calibrations(directory: Path) -> Calibrations:
    """Every table in the directory; one that does not exist has none. Never raises for what a file holds."""
    files = []
    for path in directory.glob("*.json"):
        with suppress(OSError):  # taken away since
            files.append(file_identity(path))
    tables, unreadable = [], []
    for file in sorted(files, key=lambda file: -file[2]):
        try:
            tables.append(_read(*file))
        except UnreadableCalibration as error:
            unreadable.append(error)
    return Calibrations(tuple(tables), tuple(unreadable))


@functools.lru_cache(maxsize=64)
def _read(path: str, _size: int, _changed: int) -> Calibration:
    return _read_table(Path(path))


def _read_table(path: Path) -> Calibration:
    """One table; raises `UnreadableCalibration` naming the file."""
    try:
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, InvalidSpec) as error:
        raise UnreadableCalibration(path, str(error)) from error


def table_of(directory: Path, device: Device) -> Calibration | None:
    """The device's table, None where there is none or it cannot be read."""
    path = file_of(directory, device)
    try:
        table = _read_table(path) if path.exists() else None
    except UnreadableCalibration:
        return None
    return table if table is not None and table.device == device else None


def table_lock(directory: Path, device: Device) -> Path:
    """What whoever writes the device's table holds `locked`."""
    return file_of(directory, device).with_suffix(".lock")


def save(directory: Path, calibration: Calibration) -> Calibration:
    """Merge the table into the device's file and answer what that holds now. Raises `StorageFailed`."""
    with locked(table_lock(directory, calibration.device)):
        return save_locked(directory, calibration)


def save_locked(directory: Path, calibration: Calibration) -> Calibration:
    """`save` for who holds the `table_lock` already."""
    path = file_of(directory, calibration.device)
    before = table_of(directory, calibration.device)
    if before is None and path.exists():
        with storage_errors(path):
            path.replace(path.with_name(path.name + ASIDE))
    merged = calibration if before is None else before + calibration
    write_json(path, asdict(merged))
    return merged
