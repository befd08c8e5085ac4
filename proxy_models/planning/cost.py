"""What training a swarm costs, before it starts: arithmetic, memory and, if calibrated, time. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import NotCalibrated, NotEnoughMemory
from proxy_models.families.architecture import Counts
from proxy_models.planning.calibration import Calibration, SwarmSize, choose
from proxy_models.planning.memory import bytes_per_model, largest_wave

CostedModel = ModelConfig | Counts
"""A model whose arithmetic can be counted; time and memory are estimated for a `ModelConfig` only."""


@dataclass(frozen=True)
class SwarmWork:
    """What is to be trained.

    Attributes:
        runs: how many models.
        tokens: trained by all of them together; runs may have budgets of their own.
        evaluation_tokens: a run reads to be evaluated, over all its evaluations; None: not known.
    """

    model: CostedModel
    training: TrainingConfig
    runs: int
    tokens: int
    evaluation_tokens: int | None = None


@dataclass(frozen=True)
class Room:
    """Where it is to be trained.

    Attributes:
        device: as torch calls it; its type says which tables count.
        memory_bytes: of the device, None where nobody knows; each table knows its own device's.
        processes: that share this memory, each training a wave.
    """

    device: str = "cpu"
    memory_bytes: int | None = None
    processes: int = 1

    @property
    def type(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class SwarmCost:
    """The estimate.

    FLOPs are floating point operations, a multiplication and an addition two. Evaluation's, None where not known, are
    a forward pass, a third of training's, for each token read. ``device_seconds`` are those of one process on the
    device alone, evaluation at training's FLOPs per second included where known; None with ``unknown``, the reason.
    ``largest_wave`` is how many models one process has the memory for together.
    """

    flops_per_token: int
    tokens: int
    training_flops: int
    evaluation_flops: int | None
    bytes_per_model: int | None
    memory_bytes: int | None
    largest_wave: int | None
    device_seconds: float | None = None
    unknown: str | None = None
    device: str | None = None
    backend: str | None = None
    members: int | None = None
    waves: int | None = None


def swarm_cost(work: SwarmWork, tables: Sequence[Calibration], room: Room) -> SwarmCost:
    """Count and estimate; of several tables of the device's type the first that answers is taken."""
    if work.runs == 0:
        return replace(_count(work, room, room.memory_bytes), device_seconds=0.0)
    if not isinstance(work.model, ModelConfig):
        unknown = "only the named sizes are calibrated"
        return replace(_count(work, room, room.memory_bytes), unknown=unknown)
    unknown = f"no {room.type} was calibrated yet"
    for table in tables:
        if table.device.type != room.type:
            continue
        memory = table.memory_bytes if room.memory_bytes is None else room.memory_bytes
        swarm = SwarmSize(work.model, work.training, work.runs)
        try:
            choice = choose(swarm, table, memory // room.processes)
        except (NotCalibrated, NotEnoughMemory) as error:
            unknown = str(error)
            continue
        counted, rate = _count(work, room, memory), choice.rate
        evaluated = (counted.evaluation_flops or 0) / counted.flops_per_token
        return replace(
            counted,
            device_seconds=rate.startup_seconds + (work.tokens + evaluated) / rate.tokens_per_second,
            device=str(table.device),
            backend=rate.backend,
            members=rate.members,
            waves=len(choice.waves),
        )
    return replace(_count(work, room, room.memory_bytes), unknown=unknown)


def _count(work: SwarmWork, room: Room, memory: int | None) -> SwarmCost:
    """What needs no table: arithmetic, and the memory of a named size."""
    model, training = work.model, work.training
    per_token = model.flops_per_token(training.sequence_length)
    read = work.evaluation_tokens
    sized = isinstance(model, ModelConfig)
    return SwarmCost(
        flops_per_token=per_token,
        tokens=work.tokens,
        training_flops=work.tokens * per_token,
        evaluation_flops=None if read is None else work.runs * read * per_token // 3,
        bytes_per_model=bytes_per_model(model, training) if sized else None,
        memory_bytes=memory,
        largest_wave=largest_wave(model, training, room.type, memory // room.processes)
        if sized and memory is not None
        else None,
    )
