"""The mean of saved models of one shape: of a run's last evaluations, or of several runs. Free of torch."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from proxy_models.errors import DataMissing, InvalidSpec
from proxy_models.families.start import CONFIG, FILE, TENSORS
from proxy_models.storage import new_directory


def average_models(folders: Sequence[Path], destination: Path) -> Path:
    """Write the mean of the folders' tensors, in their own precision but added up in float64; answers its folder.

    What goes with the tensors (configuration, training) is the last folder's. One tensor of each is held at a time,
    and the whole mean.

    Raises:
        InvalidSpec: no folder, or models of unlike shapes; it is said which tensor differs.
        DataMissing: a folder without a model, or of tensors that numpy cannot hold (bfloat16).
        StorageFailed: the mean cannot be written.
    """
    if not folders:
        raise InvalidSpec("the mean of no model is none", "models")
    with ExitStack() as stack:
        models = [_opened(folder, stack) for folder in folders]
        for folder, model in zip(folders, models, strict=True):
            _check_alike(folders[0], models[0], folder, model)
        mean = {name: _mean(folders, models, name) for name in models[0]}
    with new_directory(destination) as temporary:
        save_file(mean, temporary / TENSORS, {"format": "pt"})
        for name in (CONFIG, FILE, "generation_config.json"):
            if (folders[-1] / name).exists():
                shutil.copyfile(folders[-1] / name, temporary / name)
    return destination


def _opened(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """The file of each tensor."""
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / CONFIG).exists():
        raise DataMissing(folder, f"is no saved model: it needs {CONFIG} and safetensors")
    try:
        opened = [stack.enter_context(safe_open(file, framework="np")) for file in files]
    except (SafetensorError, OSError) as error:
        raise DataMissing(folder, f"cannot be read: {error}") from error
    return {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping


def _check_alike(first_folder: Path, first: dict[str, Any], folder: Path, model: dict[str, Any]) -> None:
    for name in sorted(first.keys() ^ model.keys()):
        raise InvalidSpec(f"{name} is a tensor of only one of {first_folder} and {folder}", "models")
    for name, file in first.items():
        shapes = [tuple(one.get_slice(name).get_shape()) for one in (file, model[name])]
        if shapes[0] != shapes[1]:
            raise InvalidSpec(
                f"{name} is {shapes[0]} in {first_folder} and {shapes[1]} in {folder}", "models"
            )


def _mean(folders: Sequence[Path], models: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    total: np.ndarray | None = None
    kind = np.dtype(np.float32)
    for folder, model in zip(folders, models, strict=True):
        try:
            tensor = model[name].get_tensor(name)
        except (TypeError, SafetensorError) as error:  # numpy has no bfloat16
            raise DataMissing(folder, f"{name} cannot be read here: {error}; save it in float32") from error
        kind = tensor.dtype
        total = tensor.astype(np.float64) if total is None else np.add(total, tensor, out=total)
    assert total is not None
    return (total / len(models)).astype(kind)
