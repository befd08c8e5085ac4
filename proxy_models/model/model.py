"""The dense decoder: RMSNorm, rotary positions, QK-norm, SwiGLU, tied or untied head.

Shapes in comments: B rows, T positions, W width, H heads, D head size, V vocabulary.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from proxy_models.config import ModelConfig
from proxy_models.model.head_loss import head_loss
from proxy_models.model.precision import attention_precision
from proxy_models.model.products import linear
from proxy_models.model.rms_norm import rms_norm
from proxy_models.model.rotary import rotate, rotation_table
from proxy_models.training.seeds import seed_of


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

        ``lower`` is what operands of products are rounded to (`precision`).
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
        self.initialize(seed)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw every matrix from its own generator, so that one tensor's shape does not move another's draw.

        Normal with deviation width^-0.5 (fan-in^-0.5 for the output projections, which are also divided by
        sqrt(2 layers), as in GPT-2, so that the residual stream starts at the same scale at any depth).
        """
        config = self.config
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            deviation = 1 / math.sqrt(parameter.shape[1])
            if name.endswith(("attention_out", "ffn_out")):
                deviation /= math.sqrt(2 * config.layers)
            generator = torch.Generator().manual_seed(seed_of("initialize", seed, config.name, name))
            nn.init.normal_(parameter, std=deviation, generator=generator)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, lower: torch.dtype | None = None) -> Tensor:
        """Hidden states after the last norm: tokens (B, T) int64 -> (B, T, W); the others as in `Block`."""
        table = self.rotation(tokens.shape[1], tokens.device)
        hidden = functional.embedding(tokens, self.embedding)
        for block in self.blocks:
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
