"""The tensors a run starts from, as a trainer's state before its first step."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from proxy_models.config import ModelConfig, ladder_learning_rate
from proxy_models.errors import InvalidSpec, UnfitStart
from proxy_models.families.architecture import Architecture
from proxy_models.families.counting import counted
from proxy_models.families.start import TENSORS, StartFolder, check_names
from proxy_models.training.run_spec import RunSpec


def starting_state(start: StartFolder, shape: ModelConfig | Architecture) -> dict[str, Tensor]:
    """The model of the folder with moments of zero, named as by `training.Learner.state`.

    Raises `UnfitStart` for tensors that are missing, too many or of another shape than ``shape`` has.
    """
    parameters = _ours(start) if isinstance(shape, ModelConfig) else _library(start, shape)
    zeros = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    return {
        f"{kind}.{name}": tensor
        for kind, tensors in (("model", parameters), ("average", zeros), ("square", zeros))
        for name, tensor in tensors.items()
    }


def _ours(start: StartFolder) -> dict[str, Tensor]:
    """Names and shapes were checked with the header."""
    try:
        return load_file(start.folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise UnfitStart(start.folder, f"{TENSORS} cannot be read: {error}") from error


def _library(start: StartFolder, architecture: Architecture) -> dict[str, Tensor]:
    """Through ``from_pretrained``, which knows what older folders called their tensors."""
    from transformers import AutoModelForCausalLM

    from proxy_models.families.transformers_model import configuration, drawn_from

    with drawn_from(0):  # what is missing is drawn before it is reported
        try:
            model, found = _from_pretrained(AutoModelForCausalLM, start.folder, configuration(architecture))
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise UnfitStart(start.folder, " ".join(str(error).split())[:500]) from error
    if found["mismatched_keys"]:
        name, there, here = sorted(found["mismatched_keys"])[0]
        raise UnfitStart(start.folder, f"its tensor {name} is {tuple(there)}, the model's is {tuple(here)}")
    check_names(start.folder, set(found["missing_keys"]), set(found["unexpected_keys"]))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _from_pretrained(auto: Any, folder: Path, config: Any) -> tuple[Any, dict[str, Any]]:
    return auto.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )


# The learning rate a run's schedule comes down from.


def peak_rate(spec: RunSpec) -> float:
    """``training.learning_rate``; else what the checkpoint ended with; else the default of the size.

    An architecture's default is `ladder_learning_rate` of the parameters a token passes. Raises `InvalidSpec` for a
    checkpoint that says nothing of its rate.
    """
    if spec.training.learning_rate is not None:
        return spec.training.learning_rate
    if (start := spec.starting) is not None:
        if start.saved is None:
            raise InvalidSpec(
                f"{start.folder} does not say at which learning rate it ended; give learning_rate",
                "learning_rate",
            )
        return start.saved.learning_rate
    shape = spec.model
    if isinstance(shape, ModelConfig):
        return shape.default_learning_rate
    return ladder_learning_rate(counted(shape).active_parameters)
