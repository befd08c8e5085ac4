"""Checkpoints of a run: safetensors and JSON, whole or absent, the newest kept."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from proxy_models.config import ModelConfig
from proxy_models.errors import DataMissing, StorageFailed
from proxy_models.families.architecture import Architecture
from proxy_models.families.saved_training import FILE as TRAINING
from proxy_models.families.saved_training import SavedTraining
from proxy_models.storage import new_directory, storage_errors, write_json

TENSORS, STATE = "state.safetensors", "state.json"
MODEL_TENSORS, MODEL_CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a trainer after ``step`` steps, and the JSON kept with them."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, object]


def _name(step: int) -> str:
    return f"step-{step:010d}"


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, then remove the older ones. Raises `StorageFailed`."""
    add_checkpoint(directory, checkpoint)
    drop_older_checkpoints(directory)


def add_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside the older ones; answers its folder. Raises `StorageFailed`."""
    path = directory / _name(checkpoint.step)
    with new_directory(path) as temporary:
        _save(checkpoint.tensors, temporary / TENSORS)
        write_json(temporary / STATE, {"step": checkpoint.step, "state": checkpoint.state})
    return path


def drop_older_checkpoints(directory: Path) -> None:
    """Keep the newest checkpoint only, and nothing of what was killed while it wrote an older one."""
    *older, newest = sorted(directory.glob("step-*")) or [directory / _name(0)]
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(".step-*"):
        if path.name[1:] < newest.name:
            shutil.rmtree(path, ignore_errors=True)


def checkpoint_steps(directory: Path) -> set[int]:
    """The steps there are checkpoints of."""
    return {int(path.name.removeprefix("step-")) for path in directory.glob("step-*")}


def latest_checkpoint(directory: Path) -> Checkpoint | None:
    """The newest checkpoint, or None where there is none. Raises `DataMissing` where it cannot be read."""
    steps = checkpoint_steps(directory)
    return read_checkpoint(directory, max(steps)) if steps else None


def read_checkpoint(directory: Path, step: int) -> Checkpoint:
    """The checkpoint of that step.

    Raises `DataMissing` where it cannot be read, and `StorageFailed` (retryable) where it went away: another attempt
    at the run, not yet aware that it was taken for dead, has a newer one or has finished.
    """
    path = directory / _name(step)
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        return Checkpoint(state["step"], load_file(path / TENSORS), state["state"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if not path.exists():
            raise StorageFailed(path, "was removed while it was read") from error
        raise DataMissing(path, f"is not a readable checkpoint ({error}); remove it to start over") from error


def remove_checkpoints(directory: Path) -> None:
    """Remove all checkpoints of a finished run."""
    shutil.rmtree(directory, ignore_errors=True)


def save_model(
    directory: Path,
    shape: ModelConfig | Architecture,
    parameters: Mapping[str, Tensor],
    training: SavedTraining | None = None,
) -> None:
    """Write the trained model and how it was ``training``: ``model.safetensors``, ``config.json``, ``training.json``.

    A model of ``transformers`` in the library's own layout. Raises `StorageFailed`.
    """
    with new_directory(directory) as temporary:
        if isinstance(shape, ModelConfig):
            _save(parameters, temporary / MODEL_TENSORS)
            write_json(temporary / MODEL_CONFIG, asdict(shape))
        else:
            from proxy_models.families import transformers_model

            transformers_model.save(temporary, shape, parameters)
        if training is not None:
            write_json(temporary / TRAINING, training.to_dict())


def load_model(directory: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """What `save_model` wrote. Raises `DataMissing`."""
    try:
        config = ModelConfig(**json.loads((directory / MODEL_CONFIG).read_text(encoding="utf-8")))
        return config, load_file(directory / MODEL_TENSORS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise DataMissing(directory, f"is not a saved model: {error}") from error


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with storage_errors(path):
        try:
            save_file(copies, path)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error
