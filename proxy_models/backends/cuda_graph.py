"""A stack whose whole step is one captured CUDA graph: one launch instead of hundreds."""

from collections.abc import Sequence

import torch

from proxy_models.backends.stacked import Stacked
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.model.stacked_model import Body, hidden_states

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
