"""The ways to train N models of one shape, by name: one after the other or stacked, compiled or as a CUDA graph."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.evaluation import Scored, evaluate_stack
from proxy_models.model.model import lower_precision
from proxy_models.model.stacked_model import Body, StackedDecoder, hidden_states
from proxy_models.training.stacked_optimizer import StackedAdamW
from proxy_models.training.step import Backend, Learned, Learner, Shape

ONE_BY_ONE, COMPILED = "one-by-one", "one-by-one-compiled"
STACKED, STACKED_COMPILED = "stacked", "stacked-compiled"
GRAPH = "cuda-graph"
NAMES = (ONE_BY_ONE, COMPILED, STACKED, STACKED_COMPILED, GRAPH)


class OneAfterAnother(Backend):
    """Members trained alone, each by a backend of one; ``alone`` are of one shape."""

    def __init__(self, alone: Sequence[Backend], training: TrainingConfig) -> None:
        super().__init__(len(alone), training)
        self.alone = alone

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`."""
        losses, norms = [math.nan] * self.members, [math.nan] * self.members
        for member, model in enumerate(self.alone):
            if member not in self.dropped:
                own = slice(member, member + 1)
                learned = model.learn(batches[own], rates[own])
                losses[member], norms[member] = learned.losses[0], learned.norms[0]
        return Learned(tuple(losses), tuple(norms))

    def separate_documents(self, end_of_text: int) -> None:
        """See `Backend.separate_documents`."""
        for model in self.alone:
            model.separate_documents(end_of_text)

    def state(self, member: int) -> dict[str, Tensor]:
        """See `Backend.state`."""
        return self.alone[member].state(0)

    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`."""
        self.alone[member].load(0, state, steps_done)

    def parameters(self, member: int) -> dict[str, Tensor]:
        """See `Backend.parameters`."""
        return self.alone[member].parameters(0)

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`."""
        return [model.evaluate(tasks)[0] for model in self.alone]


class Stacked(Backend):
    """N models on a leading axis, (N, P): one pass and one optimizer step for all of them.

    `compute` is one whole step on tensors that stay where they are.
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
        super().__init__(len(trainings), first)
        self.device, self.clip = device, first.clip
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
        self.results = torch.zeros(2, self.members, device=device, dtype=dtype)
        self.steps_done = 0

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`; the rows of dropped members stay as they are."""
        self.tokens.copy_(torch.from_numpy(batches))
        count = float(self.steps_done + 1)
        plan = [[0.0 if i in self.dropped else rate, count] for i, rate in enumerate(rates)]
        self.schedule.copy_(torch.tensor(plan, dtype=torch.float64))
        self.compute()
        self.steps_done += 1
        losses, norms = self.results.tolist()
        for member in self.dropped:
            losses[member] = norms[member] = math.nan
        return Learned(tuple(losses), tuple(norms))

    def compute(self) -> None:
        """From ``tokens`` and ``schedule`` to updated models and ``results``: losses and norms, (2, N).

        Asks the host nothing on an accelerator, so that a graph can hold it.
        """
        tokens = self.tokens[:, :, :-1]
        losses = self.stack.losses_and_gradients(
            tokens, self.tokens[:, :, 1:], self.gradient_parts, self.mask(tokens)
        )
        norms = self.optimizer.step(self.gradients, losses, self.clip, self.schedule)
        torch.stack((losses, norms), out=self.results)

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


WARM_UP = 3
"""Steps before capture: libraries choose kernels and allocate workspaces on first use, which a graph cannot hold."""


class Graphed(Stacked):
    """`Stacked` with `compute` replayed from a CUDA graph captured at the first step: one launch instead of hundreds.

    Batches, rates and masks are copied into the tensors the graph reads, so that it is captured once for a run.
    """

    graph: torch.cuda.CUDAGraph | None = None

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


SHAPES = 64
"""Compiled shapes kept in a process; PyTorch's default of 8 would silently go on uncompiled."""


@functools.cache
def compiled_body() -> Body:
    """`hidden_states`, compiled once for each shape at its first use (20 s, then kept on disk).

    Norms, rotations and SwiGLU become single passes over memory. The numbers agree with the uncompiled ones to
    rounding, not bit for bit.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(hidden_states, dynamic=False)


@functools.cache
def compiler_problem(device: str = "cpu") -> str | None:
    """Why nothing can be compiled here, or None: most often there is no C++ compiler."""
    try:
        double = torch.compile(lambda x: x * 2 + 1, dynamic=False)
        double(torch.ones(8, device=device))
    except Exception as error:  # the compiler's own errors, those of the C++ compiler and of the platform
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def available(device: str, compiled: bool = True) -> tuple[str, ...]:
    """The backends that can run on the device; ``compiled`` false leaves out those that need seconds to find out."""
    names = [ONE_BY_ONE, STACKED]
    if compiled and compiler_problem(device) is None:
        names += [COMPILED, STACKED_COMPILED]
    if torch.device(device).type == "cuda":
        names.append(GRAPH)
    return tuple(name for name in NAMES if name in names)


def stackable(model: Shape, backend: str) -> ModelConfig:
    """The shape as a stack can train it; raises `InvalidSpec` for a model of ``transformers``."""
    if not isinstance(model, ModelConfig):
        raise InvalidSpec(
            f"the backend {backend!r} trains named sizes only; train {model.name} with {ONE_BY_ONE!r}",
            "backend",
        )
    return model


def build(
    name: str,
    model: Shape,
    trainings: Sequence[TrainingConfig],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backend:
    """The backend called ``name`` for one model of each ``trainings``, of one shape. Raises `InvalidSpec`."""
    if name not in NAMES:
        raise InvalidSpec(f"unknown backend {name!r}; the backends are {', '.join(NAMES)}", "backend")
    if name == ONE_BY_ONE:
        learners = [Learner(model, training, device, dtype) for training in trainings]
        return OneAfterAnother(learners, trainings[0])
    if name == GRAPH and torch.device(device).type != "cuda":
        raise InvalidSpec(f"a CUDA graph cannot be captured on {device}", "device")
    shape = stackable(model, name)
    body = compiled_body() if name in (COMPILED, STACKED_COMPILED) else hidden_states
    if name == COMPILED:
        stacks = [Stacked(shape, [training], device, dtype, body) for training in trainings]
        return OneAfterAnother(stacks, trainings[0])
    kind = Graphed if name == GRAPH else Stacked
    return kind(shape, trainings, device, dtype, body)
