"""The dense decoder: RMSNorm, rotary positions, QK-norm, SwiGLU, tied or untied head, top to bottom.

Shapes in comments: B rows, T positions, W width, H heads, D head size, V vocabulary.

In bfloat16, which accelerators compute many times faster than float32, what enters a product of training and what
comes out of it is rounded to 8 significant bits; sums within it are float32. Weights, moments, norms, the residual
stream and softmax are float32, and so are the sums of the gradients that leave products. Evaluation never rounds, so
that BPB is that of the weights. A model of ``transformers`` is rounded where PyTorch's autocast does.
"""

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from proxy_models.config import BFLOAT16, ModelConfig, TrainingConfig
from proxy_models.families.architecture import Architecture
from proxy_models.model.products import ONEDNN, by_onednn, linear, product
from proxy_models.training.run_spec import seed_of


class ScoringModel(Protocol):
    """What a causal language model needs to be evaluated."""

    @property
    def config(self) -> ModelConfig | Architecture:
        """Its shape."""
        ...

    def __call__(self, tokens: Tensor) -> Any:
        """Tokens (B, T) int64 -> what `logits` takes, (B, T, ...), each position from those up to it."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Positions of what the call gave, (n, ...) -> (n, V)."""
        ...


class LanguageModel(ScoringModel, Protocol):
    """A causal language model: `model.Decoder`, or one of ``transformers`` (`families.transformers_model`)."""

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """What training lowers: tokens and targets (B, T) int64 -> scalar; ``mask`` as in `document_mask`."""
        ...

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """What training moves, by name."""
        ...


def lower_precision(training: TrainingConfig, dtype: torch.dtype = torch.float32) -> torch.dtype | None:
    """What operands of products are rounded to in training weights of ``dtype``; None: not at all."""
    if training.precision != BFLOAT16 or dtype != torch.float32:
        return None
    # CUDA's libraries may otherwise add up the parts of a product in bfloat16 (PyTorch's default).
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    return torch.bfloat16


def attention_precision(value: Tensor) -> torch.dtype:
    """What attention computes in: the precision of its values, but never bfloat16 on a CPU.

    PyTorch's backward pass took 2.8 ms there where float32 took 0.4 (8 rows, 2 heads, 64 positions of 32).
    """
    return torch.float32 if value.device.type == "cpu" and value.dtype == torch.bfloat16 else value.dtype


NORM_EPSILON = 1e-6


class _RMSNorm(torch.autograd.Function):
    """With a gradient written by hand: fewer passes over memory than autograd's."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scale: Tensor) -> Tensor:
        size = inputs.shape[-1]
        inverse = torch.linalg.vecdot(inputs, inputs).mul_(1 / size).add_(NORM_EPSILON).rsqrt_().unsqueeze(-1)
        normal = inputs * inverse
        ctx.save_for_backward(normal, inverse, scale)
        return normal * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        normal, inverse, scale = ctx.saved_tensors
        scale_gradient = (gradient * normal).sum_to_size(scale.shape)
        scaled = gradient * scale
        along = torch.linalg.vecdot(scaled, normal).mul_(-1 / normal.shape[-1]).unsqueeze(-1)
        return scaled.addcmul_(normal, along).mul_(inverse), scale_gradient


def rms_norm(inputs: Tensor, scale: Tensor) -> Tensor:
    """``inputs / rms(inputs) * scale`` over the last axis; ``scale`` broadcasts from the right.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467). With inputs (..., size) and scale (..., size).
    """
    normal = _RMSNorm.apply(inputs, scale)
    assert isinstance(normal, Tensor)
    return normal


def rotation_table(length: int, head_size: int, base: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cosines and signed sines of positions 0..length-1: (2, length, head_size), in halves as in GPT-NeoX and Llama.

    Row 1 holds ``-sin`` for the first half and ``sin`` for the second, so that a rotation is
    ``x * table[0] + swapped_halves(x) * table[1]``. Angles are computed in float64.
    Source: RoFormer (arXiv 2104.09864).
    """
    half = head_size // 2
    frequency = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency  # (length, half)
    cosine, sine = angle.cos(), angle.sin()
    table = torch.stack((torch.cat((cosine, cosine), 1), torch.cat((-sine, sine), 1)))
    return table.to(dtype)


def rotate(inputs: Tensor, table: Tensor) -> Tensor:
    """Rotate queries or keys by their position: inputs (B, T, ..., D), table (2, T, D) -> same shape.

    The halves are an axis of their own: rolled by half the width instead, a compiled rotation computes an index for
    every single number.
    """
    halves = inputs.unflatten(-1, (2, -1))  # (B, T, ..., 2, D / 2)
    shape = (inputs.shape[1], *(1,) * (inputs.ndim - 3), *halves.shape[-2:])
    cosine, sine = table[0].view(shape), table[1].view(shape)
    return (halves * cosine + halves.flip(-2) * sine).flatten(-2)


BLOCK_LOGITS = (256 if ONEDNN else 128) * 4096
"""Logits held at once (2 or 4 MiB in float32). On one AMD core oneDNN took 9.3 ms for 1024 tokens of 4096 in blocks
of 128 to 512 tokens, 10.9 at once and 12.6 in blocks of 32. On one Intel core MKL took 14.1 ms for 512 tokens in
blocks of 64 or 128, 14.8 in blocks of 256 and 16.6 in blocks of 32."""

SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny
"""Keeps the reported loss finite (at most 87.3 nats a token) where a probability underflows; the gradient
``p - onehot`` is exact there."""


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the last axis, in float32 at least; ``logits`` are overwritten where they have room for it."""
    if logits.dtype == torch.bfloat16:
        logits = logits.float()
    return torch.softmax(logits, dim=-1, out=logits)


def loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, weight_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean loss in nats () and the gradient of hidden (n, W); that of weight (V, W) is written to the last.

    Where hidden and weight are bfloat16 (`lower_precision`), so are the products; the last stays float32.
    """
    count, block = hidden.shape[0], max(1, BLOCK_LOGITS // weight.shape[0])
    turned = by_onednn(hidden)  # which is faster with (W, V), turned round at the end in the same memory
    lowered = hidden.dtype != weight_gradient.dtype
    gold = weight_gradient.new_empty(count, 1)
    hidden_gradient = torch.empty_like(hidden)
    scaled = hidden / count  # the small factor of the gradient is divided, not the large result
    summed = weight_gradient.view(weight.shape[::-1]) if turned else weight_gradient
    for start in range(0, count, block):
        rows = slice(start, start + block)
        index = targets[rows].unsqueeze(1)
        difference = probabilities(product(hidden[rows], weight))
        gold[rows] = difference.gather(1, index)
        difference = difference.scatter_(1, index, gold[rows] - 1).to(hidden.dtype)
        hidden_gradient[rows] = product(difference, weight.t())
        if turned or lowered:
            part = product(scaled[rows].t(), difference.t()) if turned else difference.t() @ scaled[rows]
            summed = summed.add_(part) if start else summed.copy_(part)
            del part  # before the next block's takes as much again
        else:  # the first block overwrites what lies there, whatever it is
            torch.addmm(summed, difference.t(), scaled[rows], beta=min(start, 1), out=summed)
        del difference  # before the next block's takes as much again
    if turned:
        weight_gradient.copy_(summed.t().clone(memory_format=torch.contiguous_format))
    loss = gold.clamp_(min=SMALLEST_PROBABILITY).log_().mean().neg_()
    return loss, hidden_gradient.div_(count)


class _HeadLoss(torch.autograd.Function):
    """Output head and cross-entropy in one pass, so that the logits never leave the cache.

    With width 64 and a vocabulary of 4096 the head is most of the arithmetic, and (tokens, 4096) logits written and
    read by each of softmax, loss and their gradients would cost more than the products. Here a block of tokens at a
    time goes from hidden states to its loss and its gradients; only the gradients are kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        weight_gradient = torch.empty_like(weight)
        loss, hidden_gradient = loss_and_gradients(hidden, weight.to(hidden.dtype), targets, weight_gradient)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient.mul_(gradient), weight_gradient.mul_(gradient), None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``softmax(hidden @ weight.T)`` against ``targets``.

    Shapes: hidden (n, width), weight (vocabulary, width), targets (n,) int64 -> scalar, as precise as weight; the
    products are in that of hidden. Differentiable once in hidden and weight; call it only where gradients are wanted,
    for it computes them on the way forward.
    """
    loss = _HeadLoss.apply(hidden, weight, targets)
    assert isinstance(loss, Tensor)
    return loss


class Block(nn.Module):
    """One pre-norm layer: causal attention, then SwiGLU, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ffn, attention = config.width, config.ffn, config.attention_width
        self.heads = config.heads
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.query_norm = nn.Parameter(torch.ones(config.head_size))
        self.key_norm = nn.Parameter(torch.ones(config.head_size))
        self.query_key_value = nn.Parameter(torch.empty(3 * attention, width))
        self.attention_out = nn.Parameter(torch.empty(width, attention))
        self.ffn_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Parameter(torch.empty(2 * ffn, width))
        self.ffn_out = nn.Parameter(torch.empty(width, ffn))

    def forward(
        self, residual: Tensor, table: Tensor, mask: Tensor | None = None, lower: torch.dtype | None = None
    ) -> Tensor:
        """(B, T, W) -> (B, T, W); ``table`` is the rotation table of the T positions, ``mask`` as in `attend`.

        ``lower`` is what operands of products are rounded to (`lower_precision`).
        """
        inner = lower or residual.dtype
        residual = residual + self.attend(rms_norm(residual, self.attention_norm).to(inner), table, mask)
        gate, up = linear(rms_norm(residual, self.ffn_norm).to(inner), self.gate_up).chunk(2, dim=-1)
        return residual + linear(functional.silu(gate) * up, self.ffn_out)

    def attend(self, inputs: Tensor, table: Tensor, mask: Tensor | None = None) -> Tensor:
        """Self-attention with normalised queries and keys: (B, T, W) -> (B, T, W).

        Causal, or what ``mask`` (B, 1, T, T) says, true where a position sees another (`document_mask`).
        """
        rows, length, _ = inputs.shape
        mixed = linear(inputs, self.query_key_value).view(rows, length, 3, self.heads, -1)
        query_key, value = mixed.split((2, 1), dim=2)  # (B, T, 2, H, D), (B, T, 1, H, D)
        scale = torch.stack((self.query_norm, self.key_norm)).unsqueeze(1)  # (2, 1, D)
        normal = rms_norm(query_key.to(scale.dtype), scale)
        inner = attention_precision(value)
        query, key = rotate(normal, table).to(inner).transpose(1, 3).unbind(2)  # (B, H, T, D)
        value = value.to(inner).squeeze(2).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None
        )
        joined = attended.transpose(1, 2).reshape(rows, length, -1).to(inputs.dtype)
        return linear(joined, self.attention_out)


class Decoder(nn.Module):
    """A causal language model of shape ``config``, initialised from ``(seed, config.name)`` alone."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.Parameter(torch.ones(config.width))
        self.head = None
        if not config.tied_embeddings:
            self.head = nn.Parameter(torch.empty(config.vocabulary_size, config.width))
        self.table = torch.empty(2, 0, config.head_size)
        self.lower: torch.dtype | None = None  # what `loss` rounds operands to
        self.recompute = False  # blocks on the way back, instead of keeping what they computed
        self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw every matrix from its own generator, so that one tensor's shape does not move another's draw.

        Normal with deviation width^-0.5 (fan-in^-0.5 for the output projections, which are also divided by
        sqrt(2 layers), as in GPT-2, so that the residual stream starts at the same scale at any depth).
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and not parameter.is_meta:
                self.draw(name, parameter, seed)

    @torch.no_grad()
    def draw(self, name: str, values: Tensor, seed: int) -> None:
        """Fill a tensor of the parameter's shape, of whichever process, with what the seed gives that parameter."""
        if values.ndim < 2:
            values.fill_(1.0)  # norms
            return
        deviation = 1 / math.sqrt(values.shape[1])
        if name.endswith(("attention_out", "ffn_out")):
            deviation /= math.sqrt(2 * self.config.layers)
        generator = torch.Generator().manual_seed(seed_of("initialize", seed, self.config.name, name))
        nn.init.normal_(values, std=deviation, generator=generator)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, lower: torch.dtype | None = None) -> Tensor:
        """Hidden states after the last norm: tokens (B, T) int64 -> (B, T, W); the others as in `Block`."""
        table = self.rotation(tokens.shape[1], tokens.device)
        hidden = functional.embedding(tokens, self.embedding)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, table, mask, lower, use_reentrant=False)
            else:
                hidden = block(hidden, table, mask, lower)
        return rms_norm(hidden, self.final_norm)

    def rotation(self, length: int, device: torch.device) -> Tensor:
        """The rotation table of the first ``length`` positions, (2, length, D), computed once."""
        dtype = torch.promote_types(self.embedding.dtype, torch.float32)
        if self.table.shape[1] < length or (self.table.device, self.table.dtype) != (device, dtype):
            with torch.inference_mode(False):  # evaluation may come first, and training needs a normal tensor
                table = rotation_table(length, self.config.head_size, self.config.rope_base, dtype)
                self.table = table.to(device)
        return self.table[:, :length]

    @property
    def head_weight(self) -> Tensor:
        """The output head, (V, W)."""
        return self.embedding if self.head is None else self.head

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., W) -> (..., V)."""
        return linear(hidden, self.head_weight)

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy in nats of the next token: tokens and targets (B, T) -> scalar, for training."""
        hidden = self(tokens, mask, self.lower).reshape(-1, self.config.width)
        return head_loss(hidden.to(self.lower or hidden.dtype), self.head_weight, targets.reshape(-1))
