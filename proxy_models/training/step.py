"""One model and its optimizer, and the learning rate of a step."""

import ctypes
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from proxy_models.batches.document_mask import Documents
from proxy_models.config import DEFAULT_WARMUP, TrainingConfig
from proxy_models.families.building import Shape, build_model
from proxy_models.training.stacked_optimizer import AdamW


def learning_rate_at(step: int, config: TrainingConfig, peak: float) -> float:
    """Rate of the step (counted from 0): linear warm-up to ``peak``, then linear decay to its floor at the last."""
    fraction = DEFAULT_WARMUP if config.warmup_fraction is None else config.warmup_fraction
    warmup = round(fraction * config.steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    return peak * (1 - (1 - config.floor_fraction) * progress)


class Learner:
    """A model and its optimizer: learns from one batch at a time, knows nothing of where batches come from."""

    def __init__(
        self,
        model: Shape,
        training: TrainingConfig,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.clip = training.clip
        self.documents = Documents(training)
        self.model = build_model(model, training, device, dtype)
        self.optimizer = AdamW(self.model.named_parameters(), training.weight_decay)

    def learn(self, batch: Tensor, learning_rate: float) -> tuple[float, float]:
        """One update from rows of T + 1 tokens, (B, T + 1) int64; returns loss and gradient norm.

        Where one of them is not finite the model stays as it was.
        """
        self.optimizer.zero_gradients()
        tokens = batch[:, :-1]
        loss = self.model.loss(tokens, batch[:, 1:], self.documents.mask(tokens))
        loss.backward()
        self.optimizer.fill_gradients()
        norm = self.optimizer.clip(self.clip)
        value = loss.item()
        if math.isfinite(value) and math.isfinite(norm):
            self.optimizer.step(learning_rate)
        return value, norm

    def state(self) -> dict[str, Tensor]:
        """All tensors a later `load` needs."""
        parameters = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        return {**parameters, **self.optimizer.state()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Continue from a `state` after ``steps_done`` steps."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state[f"model.{name}"])
        self.optimizer.load(state, steps_done)


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
# Keep freed memory in the process instead of giving it back to the kernel after every tensor.
#
# Each training step allocates and frees the same few megabytes. glibc's defaults return them and fault them in
# again page by page: one thread trained nano-0.1M at 34k tokens/s with the defaults and 46k with these.

KEPT_BYTES = 256 * 2**20
SINGLE_BYTES = 32 * 2**20
"""Larger blocks go back to the kernel at once; glibc accepts no higher limit on 64-bit machines."""


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to `KEPT_BYTES` freed at the top of the heap; False where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in (
            (_M_MMAP_THRESHOLD, SINGLE_BYTES),
            (_M_TRIM_THRESHOLD, KEPT_BYTES),
            (_M_TOP_PAD, 16 * 2**20),
        )
    )
