"""What every backend can do, and their names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from proxy_models.config import TrainingConfig
from proxy_models.evaluation import Scored, evaluate
from proxy_models.training.step import Learner, Shape

ONE_BY_ONE, COMPILED = "one-by-one", "one-by-one-compiled"
STACKED, STACKED_COMPILED = "stacked", "stacked-compiled"
GRAPH = "cuda-graph"


@dataclass(frozen=True)
class Learned:
    """What one step found: each member's loss in nats per token and its gradient's norm before clipping."""

    losses: tuple[float, ...]
    norms: tuple[float, ...]

    def diverged(self, member: int) -> bool:
        """Whether the member has no number any more; it was then not updated."""
        return not (math.isfinite(self.losses[member]) and math.isfinite(self.norms[member]))


class Backend(Protocol):
    """N models of one shape that learn in step.

    What becomes of a member depends on its seed, its batches and its rates alone: not on its companions, nor on
    whether they diverge or are dropped. A `state` of one backend can be loaded by any other.
    """

    members: int

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """One update of each member from rows of T + 1 tokens, (N, B, T + 1) int64, at its own learning rate.

        A member whose loss or norm is not finite stays as it was; a dropped one is reported as NaN.
        """
        ...

    def separate_documents(self, end_of_text: int) -> None:
        """Say which token documents begin at, before the first `learn`.

        It is read where ``attend_across_documents`` is false; `learn` raises `InvalidSpec` there without it.
        """
        ...

    def drop(self, member: int) -> None:
        """Train the member no further."""
        ...

    def state(self, member: int) -> dict[str, Tensor]:
        """All tensors of the member that a later `load` needs, named as by `training.Learner.state`."""
        ...

    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """Continue the member from a `state`; all members must have done the same ``steps_done``."""
        ...

    def parameters(self, member: int) -> dict[str, Tensor]:
        """The member's parameters by their names in `model.Decoder`."""
        ...

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """Each member's BPB on each task; what a dropped member gets means nothing."""
        ...


# Members trained one after the other, each by the kernels of a single run.


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
