"""What a wave needs of memory, how many models fit, and what this machine has. Free of torch."""

import platform
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from proxy_models.config import FLOAT32, SIZES, ModelConfig, TrainingConfig
from proxy_models.errors import NotEnoughMemory
from proxy_models.families.architecture import Counts

BUFFERS = 5
"""Copies of the parameters: values, two moments, gradients, and those autograd gives or the head's in the making.

Whichever library computes the products, on whatever processor: none was seen to keep a copy of an operand.
"""

LOGITS_BYTES = {"cpu": 4 * 2**20, "cuda": 2 * 2**30}
"""Logits and their softmax held at once, whatever N."""


def logits_bytes(device: str) -> int:
    """`LOGITS_BYTES` of a torch device such as ``cuda:1``."""
    return LOGITS_BYTES[device.partition(":")[0]]


WEIGHTS_COPIES = 4
"""Values, gradients and two moments of a model that is trained alone; what a step keeps comes on top."""


def weights_bytes(parameters: int) -> int:
    """What training takes before the first step: of any model, alone, in float32."""
    return 4 * WEIGHTS_COPIES * parameters


def bytes_per_model(model: ModelConfig, training: TrainingConfig, value_bytes: int = 4) -> int:
    """An upper estimate of what one member of a stack holds at the peak of a step.

    A token keeps for the backward pass, in each layer: 18 vectors of the width (both norms' inputs and outputs,
    queries, keys and values before, within and after norm and rotation, attention's output twice, the residuals)
    and 7 of ``ffn``; in bfloat16 no more than that, with rounded copies of the parameters and of
    the head's gradient.
    """
    activations = training.tokens_per_step * _values_per_token(model)
    mask = 0 if training.attend_across_documents else training.tokens_per_step * training.sequence_length
    return (
        _parameter_bytes(model, training, value_bytes) + value_bytes * activations + (1 + value_bytes) * mask
    )


def _parameter_bytes(model: ModelConfig, training: TrainingConfig, value_bytes: int = 4) -> int:
    rounded = 0 if training.precision == FLOAT32 else 4
    return (value_bytes * BUFFERS + rounded) * model.parameters


def _values_per_token(model: ModelConfig) -> int:
    return model.layers * (18 * model.width + 7 * model.ffn) + 4 * model.width


@dataclass(frozen=True)
class Sharing:
    """How the processes of a full run hold its model (`proxy_models.training.distributed.Engine`).

    ``rows`` are what each takes forward and back at once.
    """

    processes: int
    rows: int
    sharding: str = "ddp"
    recompute: bool = False


def bytes_per_process(
    model: ModelConfig | Counts, training: TrainingConfig, sharing: Sharing, device: str
) -> int:
    """What one process of a full run holds at its peak; of an architecture without what a step keeps.

    Sharded, a process has its part of values, gradients and both moments; besides it either computes, with all values
    and gradients of a layer and of what is outside of layers (the embedding, the head), or updates, with two copies
    of its part on the way. What an allocator does not give back comes on top.
    """
    is_sharded, parameters = sharing.sharding == "fsdp", model.parameters
    shares = sharing.processes if is_sharded else 1
    if not isinstance(model, ModelConfig):
        return weights_bytes(parameters) // shares
    layers = model.non_embedding_parameters - model.width
    gathered = parameters - layers + layers // model.layers if is_sharded else parameters // 2
    rounded = 0 if training.precision == FLOAT32 else 4 * parameters // shares
    tokens = sharing.rows * training.sequence_length
    values = _values_per_token(model)
    if sharing.recompute:
        values = model.layers * model.width + _values_per_token(replace(model, layers=1))
    mask = 0 if training.attend_across_documents else 5 * tokens * training.sequence_length
    computing = 8 * gathered + 4 * tokens * values + mask + logits_bytes(device)
    return weights_bytes(parameters) // shares + rounded + max(computing, 8 * parameters // shares)


def ways_that_fit(
    model: ModelConfig | Counts, training: TrainingConfig, sharing: Sharing, device: str, memory: int
) -> list[Sharing]:
    """Of the ways to hold it otherwise, from the least change to the largest, those of which a process fits."""
    one_row = replace(sharing, rows=1)
    sharded = replace(sharing, sharding="fsdp")
    least = replace(one_row, sharding="fsdp", recompute=True)
    more = [replace(least, processes=2**power) for power in range(1, 11) if 2**power > sharing.processes]
    changed = (sharded, one_row, replace(sharded, rows=1), replace(one_row, recompute=True), least)
    ways = (*changed, *more)
    return [way for way in ways if bytes_per_process(model, training, way, device) <= memory]


def largest_wave(model: ModelConfig, training: TrainingConfig, device: str, free_bytes: int) -> int:
    """The most models that fit into ``free_bytes`` as one stack."""
    return max(0, (free_bytes - logits_bytes(device)) // bytes_per_model(model, training))


def largest_batch_rows(model: ModelConfig, training: TrainingConfig, device: str, free_bytes: int) -> int:
    """The most rows of a step, trained otherwise as said, with which one model fits into ``free_bytes``; 0: none."""
    parameters = _parameter_bytes(model, training)
    row = bytes_per_model(model, replace(training, batch_rows=1)) - parameters
    return max(0, (free_bytes - logits_bytes(device) - parameters) // row)


def largest_size(vocabulary_size: int, training: TrainingConfig, device: str, free_bytes: int) -> str | None:
    """The largest named size of which one model fits, trained so; None: not even the smallest does."""
    models = [model.with_vocabulary(vocabulary_size) for model in SIZES.values()]
    fitting = [model.name for model in models if largest_wave(model, training, device, free_bytes)]
    return fitting[-1] if fitting else None


def check_fits(
    model: ModelConfig, training: TrainingConfig, members: int, device: str, free_bytes: int
) -> None:
    """Raise `NotEnoughMemory` where that many models do not fit into ``free_bytes`` as one stack."""
    largest = largest_wave(model, training, device, free_bytes)
    if members > largest:
        needed = members * bytes_per_model(model, training) + logits_bytes(device)
        raise NotEnoughMemory(members, needed, free_bytes, largest)


_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/sys/fs/cgroup")


def processor_name() -> str:
    """The processor's own name."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def total_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of memory in all: the machine's, or its container's where that has a limit."""
    limit = _number(cgroup / "memory.max")
    total = psutil.virtual_memory().total
    return total if limit is None else min(total, limit)


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken now; of a container's limit what is neither used nor given back on demand."""
    available = psutil.virtual_memory().available
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return available
    return min(available, max(0, limit - used + _inactive_file(cgroup / "memory.stat")))


def _number(path: Path) -> int | None:
    """What a file of the version 2 control groups says; None where there is none, or no limit (``max``)."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file(path: Path) -> int:
    """Bytes of the page cache that the kernel drops before it refuses anybody memory."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
