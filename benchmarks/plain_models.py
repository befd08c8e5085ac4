"""What people write first: a decoder of PyTorch's own parts, and Hugging Face's Llama, each in a plain loop.

Same shape, vocabulary, tied head, batch, clipping and AdamW as our models; Llama has no QK-norm, which makes it a
little lighter. In bfloat16 by PyTorch's autocast.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.model.model import lower_precision, rotate, rotation_table
from proxy_models.training.stacked_optimizer import BETAS, EPSILON

Step = Callable[[np.ndarray], float]


class PlainBlock(nn.Module):
    """One layer of `proxy_models.model.model`, written with ``nn.Linear`` and ``nn.RMSNorm``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, size = config.width, config.head_size
        self.shape = (config.heads, size)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.query_norm, self.key_norm = nn.RMSNorm(size, 1e-6), nn.RMSNorm(size, 1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, config.ffn, bias=False) for _ in range(2))
        self.down = nn.Linear(config.ffn, width, bias=False)

    def forward(self, residual: Tensor, table: Tensor) -> Tensor:
        """(B, T, W) -> (B, T, W)."""
        inputs = self.attention_norm(residual)
        query, key, value = (
            part(inputs).unflatten(2, self.shape) for part in (self.query, self.key, self.value)
        )
        query, key = rotate(self.query_norm(query), table), rotate(self.key_norm(key), table)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        residual = residual + self.out(attended.transpose(1, 2).flatten(2))
        inputs = self.ffn_norm(residual)
        return residual + self.down(functional.silu(self.gate(inputs)) * self.up(inputs))


class PlainDecoder(nn.Module):
    """(B, T) tokens to (B, T, V) logits."""

    table: Tensor

    def __init__(self, config: ModelConfig, length: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.width, 1e-6)
        self.register_buffer("table", rotation_table(length, config.head_size, config.rope_base))

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden, self.table)
        return functional.linear(self.final_norm(hidden), self.embedding.weight)


def plain_step(config: ModelConfig, training: TrainingConfig, device: str) -> Step:
    """A step of the plain module."""
    model = PlainDecoder(config, training.sequence_length).to(device)
    return _loop(model, model, training, device)


def llama_step(config: ModelConfig, training: TrainingConfig, device: str) -> Step:
    """A step of ``transformers.LlamaForCausalLM``."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.width,
            intermediate_size=config.ffn,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=training.sequence_length,
            tie_word_embeddings=True,
            use_cache=False,
        )
    ).to(device)  # pyright: ignore[reportArgumentType]
    return _loop(model, lambda tokens: model(input_ids=tokens).logits, training, device)


def _loop(
    model: nn.Module, logits: Callable[[Tensor], Tensor], training: TrainingConfig, device: str
) -> Step:
    lower = lower_precision(training)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=BETAS, eps=EPSILON, weight_decay=training.weight_decay
    )

    def step(batch: np.ndarray) -> float:
        rows = torch.from_numpy(batch).to(device)
        optimizer.zero_grad()
        with torch.autocast(torch.device(device).type, dtype=lower, enabled=lower is not None):
            found = logits(rows[:, :-1])
        loss = functional.cross_entropy(found.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        return loss.item()

    return step
