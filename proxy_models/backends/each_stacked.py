"""Members trained one after the other, each a stack of one: how a compiled body serves single models."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from proxy_models.backends.backend import Learned
from proxy_models.backends.stacked import Stacked
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.evaluation.scores import Scored
from proxy_models.model.stacked_model import Body, hidden_states


class EachStacked:
    """N stacks of one model that share one ``body``."""

    def __init__(
        self,
        model: ModelConfig,
        trainings: Sequence[TrainingConfig],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        body: Body = hidden_states,
    ) -> None:
        self.members = len(trainings)
        self.stacks = [Stacked(model, [training], device, dtype, body) for training in trainings]
        self.dropped: set[int] = set()

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`."""
        losses, norms = [math.nan] * self.members, [math.nan] * self.members
        for member, stack in enumerate(self.stacks):
            if member not in self.dropped:
                one = stack.learn(batches[member : member + 1], rates[member : member + 1])
                losses[member], norms[member] = one.losses[0], one.norms[0]
        return Learned(tuple(losses), tuple(norms))

    def separate_documents(self, end_of_text: int) -> None:
        """See `Backend.separate_documents`."""
        for stack in self.stacks:
            stack.separate_documents(end_of_text)

    def drop(self, member: int) -> None:
        """See `Backend.drop`."""
        self.dropped.add(member)

    def state(self, member: int) -> dict[str, Tensor]:
        """See `Backend.state`."""
        return self.stacks[member].state(0)

    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`."""
        self.stacks[member].load(0, state, steps_done)

    def parameters(self, member: int) -> dict[str, Tensor]:
        """See `Backend.parameters`."""
        return self.stacks[member].parameters(0)

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`."""
        return [stack.evaluate(tasks)[0] for stack in self.stacks]
