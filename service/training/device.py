"""What is known of the device that workers train on: its measured rates and its memory."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy_models.config import ModelConfig, TrainingConfig, size_named
from proxy_models.families.counts import Counts
from proxy_models.planning.calibration import Calibration
from proxy_models.planning.calibration_files import read_calibrations
from proxy_models.planning.cost import Room
from proxy_models.planning.machine import processor_name, total_memory
from proxy_models.planning.memory import (
    bytes_per_model,
    largest_batch_rows,
    largest_size,
    largest_wave,
    logits_bytes,
    weights_bytes,
)
from service.training.counts import known_counts
from store.documents import training_values
from store.problems import Invalid
from store.settings import Settings
from store.tables import Revision

Document = Mapping[str, Any]


@dataclass(frozen=True)
class WorkerDevice:
    """The tables of the device's type, the likeliest first, its room, and which files hold no table.

    ``memory_bytes`` is what one model may take at most: of several devices the largest's; None where nobody knows.
    """

    tables: tuple[Calibration, ...]
    room: Room
    unreadable: tuple[str, ...]
    memory_bytes: int | None
    model_counts: Path

    def model(self, settings: Document, vocabulary: int) -> ModelConfig | Counts | None:
        """The shape of a proxy or a launch, as stored; None for an architecture that was not counted."""
        if settings["size"] is not None:
            return size_named(settings["size"], vocabulary)
        counts = known_counts(self.model_counts, settings["architecture"])
        return None if counts is None else counts.over(vocabulary)


def worker_device(settings: Settings) -> WorkerDevice:
    """Read the tables, and this machine's own memory where its processor is what trains.

    With SQLite the workers are here, and the slots on CPUs share the memory. Otherwise they may be anywhere: what is
    known of them is what they measured.
    """
    found = read_calibrations(settings.calibrations)
    are_here = settings.database_url is None
    room = Room(settings.device, None, settings.slots_a_device if are_here else 1)
    tables = tuple(table for table in found.tables if table.device.type == room.type)
    memory = max((table.memory_bytes for table in tables), default=None)
    if are_here and room.type == "cpu":
        memory = total_memory()
        room = replace(room, memory_bytes=memory)
        name = processor_name()
        tables = tuple(sorted(tables, key=lambda table: table.device.name != name))
    return WorkerDevice(tables, room, tuple(map(str, found.unreadable)), memory, settings.model_counts)


def vocabulary_of(revision: Revision) -> int | None:
    """How many tokens the revision's tokenizer has or will have; None before one that is fetched is there."""
    return revision.vocabulary_size or revision.tokenizer.get("vocabulary_size")


def training_of(settings: Document) -> TrainingConfig:
    """How a proxy or a launch is trained, as stored."""
    return TrainingConfig(**training_values(settings))


def check_memory(device: WorkerDevice, revision: Revision, settings: Document, prefix: str) -> None:
    """Raise Invalid where not even one such model fits into the workers' memory, with what would; reads only.

    Of an architecture that is what its weights take, without a step's own memory. ``settings`` are a proxy's or a
    launch's, ``prefix`` is what stands before their fields in the request.
    """
    vocabulary = vocabulary_of(revision)
    if vocabulary is None or device.memory_bytes is None:
        return
    model, training = device.model(settings, vocabulary), training_of(settings)
    memory, type_ = device.memory_bytes, device.room.type
    if isinstance(model, Counts):
        _check_weights(model, settings, device, memory, prefix)
    if not isinstance(model, ModelConfig):
        return
    if largest_wave(model, training, type_, memory):
        return
    needed = bytes_per_model(model, training) + logits_bytes(type_)
    rows = largest_batch_rows(model, training, type_, memory)
    smaller = largest_size(vocabulary, training, type_, memory)
    raise Invalid(
        "not_enough_memory",
        f"One {model.name} with batch_rows {training.batch_rows} and sequence_length {training.sequence_length} "
        f"needs {_gigabytes(needed)}, {_gigabytes(needed - memory)} more than the {_gigabytes(memory)} of the "
        f"workers' {type_}; {_advice(model, rows, smaller)}.",
        f"{prefix}batch_rows" if rows else f"{prefix}size",
        missing_bytes=needed - memory,
        memory_bytes=memory,
        largest_batch_rows=rows or None,
        largest_size=smaller,
    )


def _check_weights(model: Counts, settings: Document, device: WorkerDevice, memory: int, prefix: str) -> None:
    needed = weights_bytes(model.parameters)
    if needed > memory:
        name = settings["architecture"]["model_type"]
        given = settings.get("start") is not None
        advice = (
            "start from a smaller model" if given else "choose fewer layers, a smaller width, or a named size"
        )
        raise Invalid(
            "not_enough_memory",
            f"The {model.parameters:,} parameters of this {name} with their gradients and moments need "
            f"{_gigabytes(needed)}, {_gigabytes(needed - memory)} more than the {_gigabytes(memory)} of the workers' "
            f"{device.room.type}; {advice}.",
            f"{prefix}start" if given else f"{prefix}architecture",
            missing_bytes=needed - memory,
            memory_bytes=memory,
        )


def _advice(model: ModelConfig, rows: int, smaller: str | None) -> str:
    ways = []
    if rows:
        ways.append(f"batch_rows {rows} would fit")
    if smaller is not None:
        ways.append(f"so would the size {smaller}" if rows else f"the size {smaller} would fit")
    if not ways:
        ways.append(f"lower sequence_length and batch_rows, or choose a smaller size than {model.name}")
    return ", and ".join(ways)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
