"""One model trained on one sampler, step by step."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from proxy_models.batches.document_mask import Documents
from proxy_models.batches.mixture_sampler import MixtureSampler
from proxy_models.config import DEFAULT_WARMUP, TrainingConfig
from proxy_models.errors import Diverged
from proxy_models.families.building import Shape, build_model
from proxy_models.model.language_model import LanguageModel
from proxy_models.training.adamw import AdamW


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


class Trainer:
    """The state of a training run: a learner, its batches and the number of steps done.

    Everything that follows depends on `state`, ``steps_done`` and the arguments alone. ``peak`` is the rate the
    schedule comes down from (`families.learning_rate`).
    """

    def __init__(
        self, model: Shape, training: TrainingConfig, sampler: MixtureSampler, device: str, peak: float
    ) -> None:
        self.training, self.sampler, self.device, self.peak = training, sampler, device, peak
        self.learner = Learner(model, training, device)
        self.steps_done = 0

    @property
    def model(self) -> LanguageModel:
        """The model as it is now."""
        return self.learner.model

    def step(self) -> float:
        """Train one step; returns its loss in nats per token. Raises `Diverged` when that is not finite."""
        batch = torch.from_numpy(self.sampler.batch(self.steps_done)).to(self.device)
        rate = learning_rate_at(self.steps_done, self.training, self.peak)
        loss, norm = self.learner.learn(batch, rate)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(self.steps_done + 1)
        self.steps_done += 1
        return loss

    def state(self) -> dict[str, Tensor]:
        """All tensors a later `load` needs."""
        return self.learner.state()

    def load(self, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Continue from a `state` after ``steps_done`` steps."""
        self.learner.load(state, steps_done)
        self.steps_done = steps_done
