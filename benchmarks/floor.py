"""The parts of a training step that no way to train in float32 leaves out, each alone: the roofline of `trainer`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from benchmarks.trainer import PARTS
from proxy_models.config import ModelConfig
from proxy_models.model.model import BLOCK_LOGITS
from proxy_models.model.products import has_onednn
from proxy_models.training.stacked_optimizer import StackedAdamW

Call = Callable[[], object]


@dataclass(frozen=True)
class StepShape:
    """A model's step."""

    model: ModelConfig
    batch_rows: int
    sequence_length: int
    device: str

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.batch_rows * self.sequence_length


def floor(shape: StepShape) -> dict[str, Call]:
    """The parts by their names in `PARTS`."""
    return dict(zip(PARTS, (products(shape), softmax(shape), attention(shape), update(shape)), strict=True))


def products(shape: StepShape, dtype: torch.dtype = torch.float32) -> Call:
    """The products of one step and nothing else, each by the faster library."""

    model, n, device = shape.model, shape.tokens, shape.device
    shapes = [(3 * model.width, model.width), (model.width, model.width), (2 * model.ffn, model.width)]
    shapes = [*shapes, (model.width, model.ffn)] * model.layers + [(model.vocabulary_size, model.width)]
    calls: list[Call] = []
    for out, inner in shapes:
        inputs, gradient, weight = (
            torch.randn(*size, device=device).to(dtype) for size in ((n, inner), (n, out), (out, inner))
        )
        # forward, gradient of the inputs, gradient of the weight either way round
        for ways in (
            [(inputs, weight)],
            [(gradient, weight.t())],
            [(gradient.t(), inputs.t()), (inputs.t(), gradient.t())],
        ):
            choices: list[Call] = []
            for left, right in ways:
                if device == "cpu" and has_onednn():
                    choices.append(lambda a=left, b=right: _onednn(a, b))
                result = torch.empty(len(left), len(right), device=device, dtype=dtype)
                choices.append(lambda a=left, b=right, c=result: torch.mm(a, b.t(), out=c))
            calls.append(min(choices, key=lambda call: seconds_of(call, 3, device)))

    def run() -> None:
        for call in calls:
            call()

    return run


def _onednn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")


def softmax(shape: StepShape) -> Call:
    """Of a step's logits, in place and in blocks that stay in the cache."""
    vocabulary = shape.model.vocabulary_size
    block = min(shape.tokens, max(1, BLOCK_LOGITS // vocabulary))
    logits = torch.randn(block, vocabulary, device=shape.device)
    times, rest = divmod(shape.tokens, block)

    def run() -> None:
        for _ in range(times):
            torch.softmax(logits, dim=-1, out=logits)
        if rest:
            torch.softmax(logits[:rest], dim=-1, out=logits[:rest])

    return run


def attention(shape: StepShape) -> Call:
    """Of every layer, forward and backward, by PyTorch's own kernel."""
    model = shape.model
    size = (3, shape.batch_rows, model.heads, shape.sequence_length, model.head_size)
    drawn = torch.randn(*size, device=shape.device)
    gradient = torch.randn(*size[1:], device=shape.device)

    def run() -> None:
        for _ in range(model.layers):
            query, key, value = drawn.detach().requires_grad_()
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            attended.backward(gradient)

    return run


def update(shape: StepShape) -> Call:
    """Norm, clipping and AdamW of one model that lies in one row."""
    size = shape.model.parameters
    values, gradients = (torch.randn(1, size, device=shape.device) for _ in range(2))
    optimizer = StackedAdamW(values, [size], size, 0.1)
    loss = torch.ones(1, device=shape.device)
    schedule = torch.tensor([[1e-3, 1.0]], dtype=torch.float64, device=shape.device)
    return lambda: optimizer.step(gradients, loss, 1.0, schedule)


def seconds_of(call: Call, times: int, device: str) -> float:
    """Time of one call: of the processor on a CPU, of the clock on an accelerator, which is waited for."""
    wait = torch.cuda.synchronize if device != "cpu" else int
    clock = time.perf_counter if device != "cpu" else time.process_time
    wait()
    started = clock()
    for _ in range(times):
        call()
    wait()
    return (clock() - started) / times
