"""What a wave needs of memory, and how many models fit."""

import torch

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import NotEnoughMemory

BUFFERS = 6
"""Copies of the parameters: values, two moments, flat gradients, those autograd gives, the head's in the making."""

LOGITS_BYTES = {"cpu": 4 * 2**20, "cuda": 2 * 2**30}
"""Logits and their softmax held at once, whatever N."""


def bytes_per_model(model: ModelConfig, training: TrainingConfig, value_bytes: int = 4) -> int:
    """An upper estimate of what one member of a stack holds at the peak of a step.

    A token keeps for the backward pass, in each layer: 18 vectors of the width (both norms' inputs and outputs,
    queries, keys and values before, within and after norm and rotation, attention's output twice, the residuals)
    and 7 of ``ffn``.
    """
    activations = training.tokens_per_step * (
        model.layers * (18 * model.width + 7 * model.ffn) + 4 * model.width
    )
    return value_bytes * (BUFFERS * model.parameters + activations)


def free_memory(device: str) -> int:
    """Bytes that can be taken on the device now."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def largest_wave(model: ModelConfig, training: TrainingConfig, device: str, free_bytes: int) -> int:
    """The most models that fit into ``free_bytes`` as one stack."""
    room = free_bytes - LOGITS_BYTES[torch.device(device).type]
    return max(0, room // bytes_per_model(model, training))


def check_fits(
    model: ModelConfig, training: TrainingConfig, members: int, device: str, free_bytes: int | None = None
) -> None:
    """Raise `NotEnoughMemory` where that many models do not fit as one stack (None: into what is free now)."""
    free_bytes = free_memory(device) if free_bytes is None else free_bytes
    largest = largest_wave(model, training, device, free_bytes)
    if members > largest:
        needed = members * bytes_per_model(model, training) + LOGITS_BYTES[torch.device(device).type]
        raise NotEnoughMemory(members, needed, free_bytes, largest)
