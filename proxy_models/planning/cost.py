"""What training a swarm costs, before it starts: arithmetic, memory and, if calibrated, time. Free of torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import NotCalibrated, NotEnoughMemory
from proxy_models.families.architecture import Counts
from proxy_models.planning.calibration import Calibration, Choice, Swarm, choose
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
    device_seconds: float | None
    unknown: str | None
    device: str | None
    backend: str | None
    members: int | None
    waves: int | None


def swarm_cost(work: SwarmWork, tables: Sequence[Calibration], room: Room) -> SwarmCost:
    """Count and estimate; of several tables of the device's type the first that answers is taken."""
    per_token = work.model.flops_per_token(work.training.sequence_length)
    read = work.evaluation_tokens
    evaluation = None if read is None else work.runs * read * per_token // 3
    each = bytes_per_model(work.model, work.training) if isinstance(work.model, ModelConfig) else None
    table, choice, unknown = _choice(work, tables, room)
    memory = room.memory_bytes if table is None or room.memory_bytes is not None else table.memory_bytes
    seconds = None
    if choice is not None:
        total = work.tokens + (evaluation or 0) / per_token
        seconds = choice.rate.startup_seconds + total / choice.rate.tokens_per_second
    elif work.runs == 0:
        seconds = 0.0
    return SwarmCost(
        flops_per_token=per_token,
        tokens=work.tokens,
        training_flops=work.tokens * per_token,
        evaluation_flops=evaluation,
        bytes_per_model=each,
        memory_bytes=memory,
        largest_wave=_largest(work, room, memory),
        device_seconds=seconds,
        unknown=unknown,
        device=None if table is None else str(table.device),
        backend=None if choice is None else choice.rate.backend,
        members=None if choice is None else choice.rate.members,
        waves=None if choice is None else len(choice.waves),
    )


def _largest(work: SwarmWork, room: Room, memory: int | None) -> int | None:
    if memory is None or not isinstance(work.model, ModelConfig):
        return None
    return largest_wave(work.model, work.training, room.type, memory // room.processes)


def _choice(
    work: SwarmWork, tables: Sequence[Calibration], room: Room
) -> tuple[Calibration | None, Choice | None, str | None]:
    """The table that answers, what it answers, or why none does."""
    if work.runs == 0:
        return None, None, None
    if not isinstance(work.model, ModelConfig):
        return None, None, "only the named sizes are calibrated"
    unknown = f"no {room.type} was calibrated yet"
    for table in tables:
        if table.device.type != room.type:
            continue
        memory = table.memory_bytes if room.memory_bytes is None else room.memory_bytes
        try:
            return (
                table,
                choose(Swarm(work.model, work.training, work.runs), table, memory // room.processes),
                None,
            )
        except (NotCalibrated, NotEnoughMemory) as error:
            unknown = str(error)
    return None, None, unknown
