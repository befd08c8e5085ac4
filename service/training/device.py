"""What is known of the device that workers train on, its rates and its memory, and of the models it is to train.

How large an architecture of ``transformers`` is gets counted once by a process that has the library, and remembered.
A request waits the seconds this takes the first time that an architecture is asked for, and one whose configuration
the library refuses is refused there instead of failing at its first run. At most one request waits: others that name
an uncounted architecture meanwhile go on without its cost, so that counting never keeps the service from answering.
"""

import hashlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from proxy_models.config import ModelConfig, TrainingConfig, size_named
from proxy_models.errors import InvalidSpec, StorageFailed
from proxy_models.families.architecture import Counts, CountsByVocabulary, check_positions
from proxy_models.planning.calibration import Calibration, read_calibrations
from proxy_models.planning.cost import Room
from proxy_models.planning.memory import (
    Sharing,
    bytes_per_model,
    bytes_per_process,
    largest_batch_rows,
    largest_size,
    largest_wave,
    logits_bytes,
    processor_name,
    total_memory,
    ways_that_fit,
    weights_bytes,
)
from proxy_models.storage import write_json
from service.processes.computation import PATIENT
from store.documents import EngineDocument, LaunchDocument, ModelDocument, TrainingDocument
from store.launchers.base import Trained
from store.lifeline import ONE_THREAD
from store.problems import Invalid
from store.settings import Settings
from store.tables import Revision

SECONDS = 60.0
"""A count takes about six, nearly all of it importing torch and transformers."""
AGAIN_SECONDS = 600.0
"""One that failed, or could not be written down, is not tried again sooner."""
FORMAT = 1

_log = logging.getLogger("mixwright.counts")
_counting = threading.Lock()
_unwritten: dict[Path, tuple[float, Mapping[str, Any]]] = {}


def known_counts(directory: Path, architecture: Mapping[str, Any]) -> CountsByVocabulary | None:
    """What was counted of it; None before that, where it was refused, or where the file holds something else."""
    try:
        return CountsByVocabulary.from_dict(_read(_file(directory, architecture)))
    except (KeyError, TypeError, ValueError):
        return None


def is_counted(settings: Settings, training: TrainingDocument) -> bool:
    """Whether nothing has to be counted of a proxy before it can be held against the library."""
    architecture = training.architecture
    return architecture is None or bool(_read(_file(settings.model_counts, architecture)))


Ending = Callable[[subprocess.Popen[str]], AbstractContextManager[None]]


def check_counted(
    settings: Settings, training: TrainingDocument | None, prefix: str, ending: Ending = nullcontext
) -> None:
    """Have the architecture of a proxy or a launch counted, unless it is known or has none.

    Within ``ending`` the process is ended by others, as where the client has left that waits for it.

    Call it after every cheaper check, and with no session open: it may take seconds. Raises Invalid naming the field
    below ``prefix`` where the library refuses it, or where its rows are to be longer than it can see. Where counting
    itself fails, which is logged, the cost stays unknown and the workers have the last word.
    """
    if training is None or training.architecture is None:
        return
    found = _counted(_file(settings.model_counts, training.architecture), training.architecture, ending)
    try:
        if found.get("field") is not None:
            raise InvalidSpec(found["problem"], found["field"])
        check_positions(found.get("positions", {}), training.sequence_length)
    except InvalidSpec as error:
        # Nobody who gave a checkpoint's folder can change its settings.
        field = "start" if training.start is not None else error.field
        raise Invalid(error.code, str(error), f"{prefix}{field}") from error


def _counted(path: Path, architecture: Mapping[str, Any], ending: Ending) -> Mapping[str, Any]:
    """What the process answered, now or once; empty where it is not known."""
    if found := _read(path):
        return found
    until, found = _unwritten.get(path, (0.0, {}))
    if time.monotonic() < until or not _counting.acquire(blocking=False):
        return found
    try:
        found = _ask(architecture, ending)
        if found:
            write_json(path, found)
            return found
    except StorageFailed as error:  # an answer all the same
        _log.warning("%s", error)
    finally:
        _counting.release()
    _unwritten[path] = (time.monotonic() + AGAIN_SECONDS, found)
    return found


def _ask(architecture: Mapping[str, Any], ending: Ending) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "proxy_models.families.counting"]
    environment = {**os.environ, **ONE_THREAD, "CUDA_VISIBLE_DEVICES": ""}
    piped = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    try:
        with subprocess.Popen(command, text=True, env=environment, **piped) as process:
            try:
                psutil.Process(process.pid).nice(PATIENT)
                with ending(process):
                    said, complaint = process.communicate(json.dumps(architecture), SECONDS)
            finally:
                process.kill()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, said, complaint)
        found = json.loads(said)
    except (OSError, subprocess.SubprocessError, psutil.Error, ValueError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        _log.warning("%s could not be counted: %s", architecture["model_type"], said[-1] if said else error)
        return {}
    if found.get("problem") is not None and found.get("field") is None:
        _log.warning("%s could not be counted: %s", architecture["model_type"], found["problem"])
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(directory: Path, architecture: Mapping[str, Any]) -> Path:
    """Another version of the library may have other defaults."""
    counted = [FORMAT, importlib.metadata.version("transformers"), architecture]
    return directory / f"{hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()}.json"


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

    def model(self, model: ModelDocument, vocabulary: int) -> ModelConfig | Counts | None:
        """The shape of a proxy or a launch; None for an architecture that was not counted."""
        if model.size is not None:
            return size_named(model.size, vocabulary)
        counts = known_counts(self.model_counts, model.architecture or {})
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


def check_memory(device: WorkerDevice, revision: Revision, document: TrainingDocument, prefix: str) -> None:
    """Raise Invalid where not even one such model fits into the workers' memory, with what would; reads only.

    Of an architecture that is what its weights take, without a step's own memory. ``document`` is a proxy's or a
    launch's, ``prefix`` is what stands before its fields in the request.
    """
    vocabulary = vocabulary_of(revision)
    if vocabulary is None or device.memory_bytes is None:
        return
    model, training = device.model(document, vocabulary), TrainingConfig(**document.chosen)
    memory, type_ = device.memory_bytes, device.room.type
    if isinstance(model, Counts):
        _check_weights(model, document, device, memory, prefix)
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


def check_shared_memory(
    device: WorkerDevice, revision: Revision, document: LaunchDocument, launcher: Trained
) -> None:
    """Raise Invalid where a process of a full run does not fit into its memory: how much is missing, what would fit.

    Known is what the launcher says of its devices, or this machine's memory where the processes are on it.
    """
    memory = launcher.device_memory
    if memory is None and launcher.device == device.room.type == "cpu" and device.room.memory_bytes:
        memory = device.room.memory_bytes // launcher.processes
    vocabulary = vocabulary_of(revision)
    model = None if vocabulary is None else device.model(document, vocabulary)
    if memory is None or model is None:
        return
    engine, processes = document.engine or EngineDocument(), launcher.world_size
    rows = engine.micro_batch_rows or document.batch_rows // processes
    training = TrainingConfig(**document.chosen)
    sharing = Sharing(processes, rows, engine.sharding, engine.recompute)
    needed = bytes_per_process(model, training, sharing, launcher.device)
    if needed <= memory:
        return
    fitting = next(iter(ways_that_fit(model, training, sharing, launcher.device, memory)), None)
    advice = "choose a smaller model or shorter rows" if fitting is None else f"it fits with {_held(fitting)}"
    raise Invalid(
        "not_enough_memory",
        f"With {_held(sharing)} each process needs {_gigabytes(needed)}, {_gigabytes(needed - memory)} more than its"
        f" {_gigabytes(memory)}; {advice}.",
        "engine",
        missing_bytes=needed - memory,
        memory_bytes=memory,
        fits=None if fitting is None else asdict(fitting),
    )


def _held(way: Sharing) -> str:
    recompute = ", recompute" if way.recompute else ""
    return f"{way.processes} processes, sharding {way.sharding}, micro_batch_rows {way.rows}{recompute}"


def _check_weights(
    model: Counts, document: ModelDocument, device: WorkerDevice, memory: int, prefix: str
) -> None:
    needed = weights_bytes(model.parameters)
    if needed > memory:
        name = (document.architecture or {}).get("model_type")
        given = document.start is not None
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
