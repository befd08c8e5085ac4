"""Members trained one after the other, each by the kernels of a single run."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from proxy_models.backends.backend import Learned
from proxy_models.config import TrainingConfig
from proxy_models.evaluation.scores import Scored, evaluate
from proxy_models.families.building import Shape
from proxy_models.training.step import Learner


class OneByOne:
    """A `Learner` for each member; the numbers are those of `wave.train_run`, bit for bit."""

    def __init__(
        self,
        model: Shape,
        trainings: Sequence[TrainingConfig],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.members, self.device = len(trainings), device
        self.learners = [Learner(model, training, device, dtype) for training in trainings]
        self.dropped: set[int] = set()

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`."""
        rows = torch.from_numpy(batches).to(self.device)
        found = [
            (math.nan, math.nan) if member in self.dropped else learner.learn(rows[member], rates[member])
            for member, learner in enumerate(self.learners)
        ]
        losses, norms = zip(*found, strict=True)
        return Learned(losses, norms)

    def separate_documents(self, end_of_text: int) -> None:
        """See `Backend.separate_documents`."""
        for learner in self.learners:
            learner.documents.end_of_text = end_of_text

    def drop(self, member: int) -> None:
        """See `Backend.drop`."""
        self.dropped.add(member)

    def state(self, member: int) -> dict[str, Tensor]:
        """See `Backend.state`."""
        return self.learners[member].state()

    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`."""
        self.learners[member].load(state, steps_done)

    def parameters(self, member: int) -> dict[str, Tensor]:
        """See `Backend.parameters`."""
        return {name: p.detach() for name, p in self.learners[member].model.named_parameters()}

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`."""
        return [evaluate(learner.model, tasks, self.device) for learner in self.learners]
