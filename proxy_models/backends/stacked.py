"""Members stacked on a leading axis: one pass and one optimizer step for all of them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from proxy_models.backends.backend import Learned
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.evaluation import Scored, evaluate_stack
from proxy_models.model.model import lower_precision
from proxy_models.model.stacked_model import Body, StackedDecoder, hidden_states
from proxy_models.training.stacked_optimizer import StackedAdamW
from proxy_models.training.step import Documents


class Stacked:
    """N models, (N, P); `compute` is one whole step on tensors that stay where they are.

    ``body`` is the function that gives the hidden states, compiled or not. The members' ``clip`` and ``weight_decay``
    are the first one's: a wave has one shape.
    """

    def __init__(
        self,
        model: ModelConfig,
        trainings: Sequence[TrainingConfig],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        body: Body = hidden_states,
    ) -> None:
        first = trainings[0]
        self.members, self.device, self.clip = len(trainings), device, first.clip
        self.documents = Documents(first)
        seeds = [training.seed for training in trainings]
        self.stack = StackedDecoder(model, seeds, device, dtype, body, lower_precision(first, dtype))
        values = self.stack.values
        self.optimizer = StackedAdamW(values, self.stack.sizes, self.stack.matrices, first.weight_decay)
        self.gradients = torch.empty_like(values)
        self.gradient_parts = self.stack.parts(self.gradients)
        self.tokens = torch.zeros(
            self.members, first.batch_rows, first.sequence_length + 1, dtype=torch.int64, device=device
        )
        self.schedule = torch.zeros(self.members, 2, dtype=torch.float64, device=device)
        self.found = torch.zeros(2, self.members, device=device, dtype=dtype)
        self.dropped: set[int] = set()
        self.steps_done = 0

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`."""
        self.tokens.copy_(torch.from_numpy(batches))
        count = float(self.steps_done + 1)
        plan = [[0.0 if i in self.dropped else rate, count] for i, rate in enumerate(rates)]
        self.schedule.copy_(torch.tensor(plan, dtype=torch.float64))
        self.compute()
        self.steps_done += 1
        losses, norms = self.found.tolist()
        for member in self.dropped:
            losses[member] = norms[member] = math.nan
        return Learned(tuple(losses), tuple(norms))

    def compute(self) -> None:
        """From ``tokens`` and ``schedule`` to updated models and ``found``: losses and norms, (2, N).

        Asks the host nothing on an accelerator, so that a graph can hold it.
        """
        tokens = self.tokens[:, :, :-1]
        losses = self.stack.losses_and_gradients(
            tokens, self.tokens[:, :, 1:], self.gradient_parts, self.documents.mask(tokens)
        )
        norms = self.optimizer.step(self.gradients, losses, self.clip, self.schedule)
        torch.stack((losses, norms), out=self.found)

    def separate_documents(self, end_of_text: int) -> None:
        """See `Backend.separate_documents`."""
        self.documents.end_of_text = end_of_text

    def drop(self, member: int) -> None:
        """Masked out: its row stays as it is."""
        self.dropped.add(member)

    def state(self, member: int) -> dict[str, Tensor]:
        """See `Backend.state`."""
        rows = {
            "model": self.stack.values.detach(),
            "average": self.optimizer.averages,
            "square": self.optimizer.squares,
        }
        return {
            f"{kind}.{name}": part
            for kind, buffer in rows.items()
            for name, part in self.stack.parts(buffer[member]).items()
        }

    @torch.no_grad()
    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`."""
        for name, part in self.state(member).items():
            part.copy_(state[name])
        self.steps_done = steps_done

    def parameters(self, member: int) -> dict[str, Tensor]:
        """See `Backend.parameters`."""
        return self.stack.parts(self.stack.values.detach()[member])

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`."""
        return evaluate_stack(self.stack, tasks, self.device)


# A stack whose whole step is one captured CUDA graph: one launch instead of hundreds.

WARM_UP = 3
"""Steps before capture: libraries choose kernels and allocate workspaces on first use, which a graph cannot hold."""


class Graphed(Stacked):
    """`Stacked` with `compute` replayed from a graph captured at the first step.

    Batches, rates and masks are copied into the tensors the graph reads, so that it is captured once for a run.
    """

    def __init__(
        self,
        model: ModelConfig,
        trainings: Sequence[TrainingConfig],
        device: str = "cuda",
        dtype: torch.dtype = torch.float32,
        body: Body = hidden_states,
    ) -> None:
        if torch.device(device).type != "cuda":
            raise InvalidSpec(f"a CUDA graph cannot be captured on {device}", "device")
        super().__init__(model, trainings, device, dtype, body)
        self.graph: torch.cuda.CUDAGraph | None = None

    def compute(self) -> None:
        """See `Stacked.compute`."""
        if self.graph is None:
            self.graph = self._capture()
        self.graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Capture a step; the warm-up's updates are taken back."""
        moved = (self.stack.values.detach(), self.optimizer.averages, self.optimizer.squares)
        kept = [buffer.clone() for buffer in moved]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                super().compute()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            super().compute()
        for buffer, before in zip(moved, kept, strict=True):
            buffer.copy_(before)
        return graph


# Members trained one after the other, each a stack of one: how a compiled body serves single models.


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
