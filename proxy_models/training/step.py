"""One model of either kind and its optimizer, what its positions see, and the learning rate of a step."""

import ctypes
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from proxy_models.config import DEFAULT_WARMUP, ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.families.architecture import Architecture
from proxy_models.model.model import Decoder, LanguageModel, lower_precision
from proxy_models.training.stacked_optimizer import AdamW


def document_mask(tokens: Tensor, end_of_text: int) -> Tensor:
    """Causal and block-diagonal: tokens (..., T) int64 -> (rows, 1, T, T), true where a query (row) sees a key.

    Asks the host nothing, so that a CUDA graph can hold it. It takes T bytes a token, and four times that as the
    floating-point mask PyTorch's attention makes of it.

    Rows are cut from documents laid end to end. A document begins at each end-of-text token, as in evaluation; a
    row's tokens before its first one are the rest of a document that began in no row or another.
    """
    documents = (tokens.flatten(0, -2) == end_of_text).cumsum(-1)
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


class Documents:
    """The mask of a training run's batches, or none. ``end_of_text`` is the shards', known after their opening."""

    def __init__(self, training: TrainingConfig) -> None:
        self.across = training.attend_across_documents
        self.end_of_text: int | None = None

    def mask(self, tokens: Tensor) -> Tensor | None:
        """`document_mask`, or None where attention goes across. Raises `InvalidSpec` without ``end_of_text``."""
        if self.across:
            return None
        if self.end_of_text is None:
            raise InvalidSpec(
                "attention within documents needs the token that documents begin at",
                "attend_across_documents",
            )
        return document_mask(tokens, self.end_of_text)


Shape = ModelConfig | Architecture


def build_model(shape: Shape, training: TrainingConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """The model of the shape on the device, initialised from the training's seed and the shape alone.

    Raises `InvalidSpec`: an architecture ``transformers`` cannot build, or one too short for the training's rows.
    """
    if isinstance(shape, ModelConfig):
        decoder = Decoder(shape, training.seed).to(device, dtype)
        decoder.lower = lower_precision(training, dtype)
        return decoder
    # seconds to import, and needed for these only
    from proxy_models.families.transformers_model import TransformersModel, build, check_length

    check_length(shape, training.sequence_length)
    inner = build(shape, training.seed).to(device, dtype)
    return TransformersModel(shape, inner, lower_precision(training, dtype))


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
