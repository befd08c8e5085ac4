"""A step of training: what every backend can do, one model and its optimizer, what positions see, the rate."""

import ctypes
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proxy_models.config import DEFAULT_WARMUP, ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.evaluation import Scored, evaluate
from proxy_models.families.architecture import Architecture, check_positions
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


Shape = ModelConfig | Architecture


def build_model(shape: Shape, training: TrainingConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """The model of the shape on the device, initialised from the training's seed and the shape alone.

    On the device ``meta`` it has no numbers.

    Raises `InvalidSpec`: an architecture ``transformers`` cannot build, or one too short for the training's rows.
    """
    if isinstance(shape, ModelConfig):
        with torch.device(device if device == "meta" else "cpu"):
            decoder = Decoder(shape, training.seed).to(device, dtype)
        decoder.lower = lower_precision(training, dtype)
        return decoder
    # seconds to import, and needed for these only
    from proxy_models.families.transformers_model import TransformersModel, build, empty_model, positions

    check_positions(positions(shape), training.sequence_length)
    made = empty_model(shape) if device == "meta" else build(shape, training.seed)
    inner = made.to(device, dtype)
    return TransformersModel(shape, inner, lower_precision(training, dtype))


def learning_rate_at(step: int, config: TrainingConfig, peak: float) -> float:
    """Rate of the step (counted from 0): linear warm-up to ``peak``, then linear decay to its floor at the last."""
    fraction = DEFAULT_WARMUP if config.warmup_fraction is None else config.warmup_fraction
    warmup = round(fraction * config.steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    return peak * (1 - (1 - config.floor_fraction) * progress)


@dataclass(frozen=True)
class Learned:
    """What one step found: each member's loss in nats per token and its gradient's norm before clipping."""

    losses: tuple[float, ...]
    norms: tuple[float, ...]

    def diverged(self, member: int) -> bool:
        """Whether the member has no number any more; it was then not updated."""
        return not (math.isfinite(self.losses[member]) and math.isfinite(self.norms[member]))


class Backend(ABC):
    """N models of one shape that learn in step.

    What becomes of a member depends on its seed, its batches and its rates alone: not on its companions, nor on
    whether they diverge or are dropped. A `state` of one backend can be loaded by any other.
    """

    def __init__(self, members: int, training: TrainingConfig) -> None:
        self.members, self.across = members, training.attend_across_documents
        self.end_of_text: int | None = None
        self.dropped: set[int] = set()

    @abstractmethod
    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """One update of each member from rows of T + 1 tokens, (N, B, T + 1) int64, at its own learning rate.

        A member whose loss or norm is not finite stays as it was; a dropped one is reported as NaN.
        """

    def separate_documents(self, end_of_text: int) -> None:
        """Say which token documents begin at, before the first `learn`.

        It is read where ``attend_across_documents`` is false; `learn` raises `InvalidSpec` there without it.
        """
        self.end_of_text = end_of_text

    def mask(self, tokens: Tensor) -> Tensor | None:
        """`document_mask` of a batch, or None where attention goes across; `InvalidSpec` without end-of-text."""
        if self.across:
            return None
        if self.end_of_text is None:
            raise InvalidSpec(
                "attention within documents needs the token that documents begin at",
                "attend_across_documents",
            )
        return document_mask(tokens, self.end_of_text)

    def drop(self, member: int) -> None:
        """Train the member no further."""
        self.dropped.add(member)

    @abstractmethod
    def state(self, member: int) -> dict[str, Tensor]:
        """All tensors of the member that a later `load` needs, by name: ``model.*`` and both moments."""

    @abstractmethod
    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Continue the member from a `state`; all members must have done the same ``steps_done``."""

    @abstractmethod
    def parameters(self, member: int) -> dict[str, Tensor]:
        """The member's parameters by their names in `model.Decoder`."""

    @abstractmethod
    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """Each member's BPB on each task; what a dropped member gets means nothing."""


class Learner(Backend):
    """A model and its optimizer, alone."""

    def __init__(
        self,
        model: Shape,
        training: TrainingConfig,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(1, training)
        self.device, self.clip = device, training.clip
        self.model = build_model(model, training, device, dtype)
        self.optimizer = AdamW(self.model.named_parameters(), training.weight_decay)

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`."""
        self.optimizer.zero_gradients()
        batch = torch.from_numpy(batches[0]).to(self.device)
        tokens = batch[:, :-1]
        loss = self.model.loss(tokens, batch[:, 1:], self.mask(tokens))
        loss.backward()
        self.optimizer.fill_gradients()
        norm = float(self.optimizer.norm())
        self.optimizer.clip(self.clip, norm)
        learned = Learned((loss.item(),), (norm,))
        if not learned.diverged(0):
            self.optimizer.step(rates[0])
        return learned

    def state(self, member: int = 0) -> dict[str, Tensor]:
        """See `Backend.state`."""
        parameters = {f"model.{name}": p for name, p in self.parameters(member).items()}
        return {**parameters, **self.optimizer.state()}

    @torch.no_grad()
    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(state[f"model.{name}"])
        self.optimizer.load(state, steps_done)

    def parameters(self, member: int = 0) -> dict[str, Tensor]:
        """See `Backend.parameters`."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`."""
        return [evaluate(self.model, tasks, self.device)]


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
