"""N decoders of one shape on a leading model axis: the same formula as `model.Decoder`, one batched product for N.

Shapes in comments: N models, B rows, T positions, W width, H heads, D head size, V vocabulary, P parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from proxy_models.config import ModelConfig
from proxy_models.model.model import (
    SMALLEST_PROBABILITY,
    Decoder,
    attention_precision,
    loss_and_gradients,
    probabilities,
    rms_norm,
    rotate,
    rotation_table,
)
from proxy_models.model.products import product, stacked_linear

TABLES = ("embedding", "head")
"""The parameters of a row per token, which the body does not read."""


class Layer(NamedTuple):
    """The weights of one block of N models; named and shaped as in `model.Block`, with N in front."""

    attention_norm: Tensor
    query_norm: Tensor
    key_norm: Tensor
    query_key_value: Tensor
    attention_out: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    ffn_out: Tensor


class Weights(NamedTuple):
    """Everything the body of N models reads."""

    layers: tuple[Layer, ...]
    final_norm: Tensor  # (N, W)


Body = Callable[[Weights, Tensor, Tensor, Tensor | None], Tensor]


def hidden_states(weights: Weights, residual: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
    """States after the last norm: embedded tokens (N, B, T, W), rotation table (2, T, D) -> (N, B, T, W).

    Attention is causal, or what ``mask`` (NB, 1, T, T) says (`document_mask`). Products are computed in the precision
    of their weights, norms and the residual stream in that of the norms' scales.
    A function of tensors alone, so that it can be compiled once for every stack of this shape.
    """
    for layer in weights.layers:
        inner = layer.gate_up.dtype
        residual = residual + _attend(_norm(residual, layer.attention_norm).to(inner), layer, table, mask)
        gate, up = stacked_linear(_norm(residual, layer.ffn_norm).to(inner), layer.gate_up).chunk(2, dim=-1)
        residual = residual + stacked_linear(functional.silu(gate) * up, layer.ffn_out)
    return _norm(residual, weights.final_norm)


def _norm(inputs: Tensor, scale: Tensor) -> Tensor:
    return rms_norm(inputs, scale[:, None, None])


def _attend(inputs: Tensor, layer: Layer, table: Tensor, mask: Tensor | None) -> Tensor:
    models, rows, length, _ = inputs.shape
    size = layer.query_norm.shape[1]
    mixed = stacked_linear(inputs, layer.query_key_value).view(models, rows, length, 3, -1, size)
    query_key, value = mixed.split((2, 1), dim=3)  # (N, B, T, 2, H, D), (N, B, T, 1, H, D)
    scale = torch.stack((layer.query_norm, layer.key_norm), dim=1)[:, None, None, :, None]
    query_key = rotate(rms_norm(query_key.to(scale.dtype), scale).flatten(0, 1), table)  # (NB, T, 2, H, D)
    inner = attention_precision(value)
    query, key = query_key.to(inner).transpose(1, 3).unbind(2)  # (NB, H, T, D)
    value = value.to(inner).flatten(0, 1).squeeze(2).transpose(1, 2)
    attended = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None
    )
    joined = attended.transpose(1, 2).reshape(models, rows, length, -1).to(inputs.dtype)
    return stacked_linear(joined, layer.attention_out)


BLOCK_LOGITS = 2**28
"""Logits of all models held at once on an accelerator (1 GiB in float32)."""


def stacked_loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, weight_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Each model's mean cross-entropy in nats (N,) and the gradients of its own loss.

    Shapes: hidden (N, n, W), weight (N, V, W), targets (N, n) int64. The gradient of hidden is returned, that of
    weight is written to ``weight_gradient``, whatever lies there. bfloat16 as in `model.loss_and_gradients`.
    """
    method = _one_after_another if hidden.device.type == "cpu" else together
    return method(hidden, weight, targets, weight_gradient)


def _one_after_another(
    hidden: Tensor, weight: Tensor, targets: Tensor, weight_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """On a CPU the logits of one block of one model stay in the cache; those of N models would not."""
    each = zip(hidden, weight, targets, weight_gradient, strict=True)
    losses, hidden_gradients = zip(*(loss_and_gradients(*one) for one in each), strict=True)
    return torch.stack(losses), torch.stack(hidden_gradients)


def together(
    hidden: Tensor, weight: Tensor, targets: Tensor, weight_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """By batched products over blocks of positions."""
    models, count, _ = hidden.shape
    block = max(1, BLOCK_LOGITS // (models * weight.shape[1]))
    gold = weight_gradient.new_empty(models, count, 1)
    hidden_gradient = torch.empty_like(hidden)
    weight_gradient.zero_()
    for start in range(0, count, block):
        rows = slice(start, start + block)
        index = targets[:, rows].unsqueeze(2)
        difference = probabilities(torch.bmm(hidden[:, rows], weight.transpose(1, 2)))
        gold[:, rows] = difference.gather(2, index)
        difference = difference.scatter_(2, index, gold[:, rows] - 1).to(hidden.dtype)
        hidden_gradient[:, rows] = torch.bmm(difference, weight)
        if hidden.dtype == weight_gradient.dtype:
            weight_gradient.baddbmm_(difference.transpose(1, 2), hidden[:, rows])
        else:
            weight_gradient.add_(torch.bmm(difference.transpose(1, 2), hidden[:, rows]))
        del difference  # before the next block's takes as much again
    losses = gold.clamp_(min=SMALLEST_PROBABILITY).log_().mean(dim=(1, 2)).neg_()
    weight_gradient.div_(count)
    return losses, hidden_gradient.div_(count)


class StackedDecoder:
    """N models whose weights lie in one buffer ``values`` (N, P), each row a whole model.

    A row holds the matrices first and the norms' scales after them, so that weight decay is one slice
    (``matrices`` long). ``weights`` maps a parameter's name in `Decoder` to its view (N, *shape).
    ``trained`` is the same as training reads it: where it rounds operands of products to ``lower``
    (`lower_precision`), the matrices are rounded copies, views of ``operands``.
    """

    def __init__(
        self,
        config: ModelConfig,
        seeds: Sequence[int],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        body: Body = hidden_states,
        lower: torch.dtype | None = None,
    ) -> None:
        self.config, self.body = config, body
        shapes = sorted(_shapes(config).items(), key=lambda item: len(item[1]) < 2)  # stable: matrices first
        self.shapes = dict(shapes)
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.matrices = sum(shape.numel() for shape in self.shapes.values() if len(shape) >= 2)
        self.values = torch.empty(len(seeds), config.parameters, device=device, dtype=dtype)
        self.weights = self.parts(self.values)
        self.body_names = [name for name in self.shapes if name not in TABLES]
        self.trained, self.operands = self.weights, None
        if lower is not None:
            self.operands = torch.empty(len(seeds), self.matrices, device=device, dtype=lower)
            self.trained = self.weights | self.parts(self.operands)
        for name in self.body_names:
            self.trained[name].requires_grad_()
        self.table = torch.empty(2, 0, config.head_size, device=device)
        for member, seed in enumerate(seeds):
            self.load(member, dict(Decoder(config, seed).named_parameters()))

    @property
    def members(self) -> int:
        """N."""
        return len(self.values)

    @torch.no_grad()
    def load(self, member: int, parameters: dict[str, Tensor]) -> None:
        """Take over the parameters of one model, by their names in `Decoder`."""
        for name, weight in self.weights.items():
            weight[member].copy_(parameters[name])

    def parts(self, rows: Tensor) -> dict[str, Tensor]:
        """Views by parameter name of rows (..., P) laid out as ``values``, or of their matrices, (..., matrices)."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            if start == rows.shape[-1]:
                break
            stop = start + shape.numel()
            views[name] = rows[..., start:stop].view(*rows.shape[:-1], *shape)
            start = stop
        return views

    def hidden(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, B, T) int64 -> (N, B, T, W), without gradient and never compiled; ``mask`` as in `hidden_states`."""
        table = self._rotation(tokens.shape[-1])
        with torch.no_grad():
            weights = _body_weights(self.config, self.weights)
            return hidden_states(weights, self.weights["embedding"][self._rows(tokens)], table, mask)

    def _rotation(self, length: int) -> Tensor:
        """The rotation table of the first ``length`` positions, (2, length, D)."""
        if self.table.shape[1] < length:
            with torch.inference_mode(False):  # evaluation may come first, and training needs a normal tensor
                dtype = torch.promote_types(self.values.dtype, torch.float32)
                table = rotation_table(length, self.config.head_size, self.config.rope_base, dtype)
                self.table = table.to(self.values.device)
        return self.table[:, :length]

    def _rows(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the embeddings (N, V, W) that tokens (N, B, T) are looked up in, as an index."""
        return torch.arange(self.members, device=tokens.device).view(-1, 1, 1), tokens

    @property
    def head_weight(self) -> Tensor:
        """The output heads, (N, V, W)."""
        return self.weights["embedding" if self.config.tied_embeddings else "head"]

    def losses_and_gradients(
        self, tokens: Tensor, targets: Tensor, out: dict[str, Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy of each model in nats (N,): tokens and targets (N, B, T).

        The gradients of each model's own loss are written to ``out``, the `parts` of (N, P), whatever lies there.
        No model reads another's weights, so one whose numbers are NaN leaves every other's gradient what it is.

        Only the body is left to autograd: the head comes with its gradients, and the embedding's are added to its
        rows, where autograd would fill, add and copy tables of which a step touches a few rows.
        """
        if self.operands is not None:
            self.operands.copy_(self.values[:, : self.matrices].detach())
        residual = self.weights["embedding"][self._rows(tokens)].requires_grad_()
        weights = _body_weights(self.config, self.trained)
        hidden = self.body(weights, residual, self._rotation(tokens.shape[-1]), mask)
        head = "embedding" if self.config.tied_embeddings else "head"
        inner = self.trained[head].detach()
        losses, hidden_gradient = stacked_loss_and_gradients(
            hidden.detach().to(inner.dtype).flatten(1, 2), inner, targets.flatten(1), out[head]
        )
        leaves = [residual, *(self.trained[name] for name in self.body_names)]
        looked_up, *gradients = torch.autograd.grad(
            hidden, leaves, hidden_gradient.view_as(hidden).to(hidden.dtype)
        )
        torch._foreach_copy_(  # pyright: ignore[reportPrivateImportUsage]
            [out[name] for name in self.body_names], gradients
        )
        if head != "embedding":
            out["embedding"].zero_()
        out["embedding"].index_put_(self._rows(tokens), looked_up, accumulate=True)
        return losses

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, n, W) -> (N, n, V), without gradient."""
        if hidden.device.type == "cpu":  # a batched product this wide took 2.4 times as long as N single ones
            return torch.stack(
                [product(one, head) for one, head in zip(hidden, self.head_weight, strict=True)]
            )
        return torch.bmm(hidden, self.head_weight.transpose(1, 2))


def _body_weights(config: ModelConfig, named: Mapping[str, Tensor]) -> Weights:
    layers = tuple(
        Layer(*(named[f"blocks.{index}.{field}"] for field in Layer._fields))
        for index in range(config.layers)
    )
    return Weights(layers, named["final_norm"])


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in Decoder(config).named_parameters()}
