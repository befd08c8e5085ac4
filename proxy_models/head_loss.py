"""Output head and cross-entropy in one pass, so that the logits never leave the cache.

With width 64 and a vocabulary of 4096 the head is most of the arithmetic, and (tokens, 4096) logits written
and read by each of softmax, loss and their gradients would cost more than the products. Here a block of
tokens at a time goes from hidden states to its loss and its gradients; only the gradients are kept.
"""

from typing import Any

import torch
from torch import Tensor

from proxy_models.onednn_linear import product

BLOCK_LOGITS = 256 * 4096
"""Logits held at once (4 MiB in float32): on one core, blocks of 128 to 512 tokens of 4096 took 9.3 ms per
1024 tokens, the whole at once 10.9 and blocks of 32 12.6."""

SMALLEST_PROBABILITY = torch.finfo(torch.float32).tiny
"""Keeps the reported loss finite (at most 87.3 nats a token) where a probability underflows; the gradient
``p - onehot`` is exact there."""


def loss_and_gradients(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss in nats () and its gradients, shaped as hidden (n, W) and weight (V, W)."""
    count, block = hidden.shape[0], max(1, BLOCK_LOGITS // weight.shape[0])
    gold = hidden.new_empty(count, 1)
    hidden_gradient = torch.empty_like(hidden)
    weight_gradient = weight.new_zeros(weight.shape[1], weight.shape[0])  # (W, V): the faster way round
    for start in range(0, count, block):
        rows = slice(start, start + block)
        index = targets[rows].unsqueeze(1)
        logits = product(hidden[rows], weight)
        difference = torch.softmax(logits, dim=-1, out=logits)
        gold[rows] = difference.gather(1, index)
        difference.scatter_(1, index, gold[rows] - 1)
        hidden_gradient[rows] = product(difference, weight.t())
        weight_gradient += product(hidden[rows].t(), difference.t())
    loss = gold.clamp_(min=SMALLEST_PROBABILITY).log_().mean().neg_()
    return loss, hidden_gradient.div_(count), weight_gradient.div_(count).t().contiguous()


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        loss, hidden_gradient, weight_gradient = loss_and_gradients(hidden, weight, targets)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        hidden_gradient, weight_gradient = ctx.saved_tensors
        return hidden_gradient * gradient, weight_gradient * gradient, None


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of ``softmax(hidden @ weight.T)`` against ``targets``.

    Shapes: hidden (n, width), weight (vocabulary, width), targets (n,) int64 -> scalar. Differentiable once
    in hidden and weight; call it only where gradients are wanted, for it computes them on the way forward.
    """
    loss = _HeadLoss.apply(hidden, weight, targets)
    assert isinstance(loss, Tensor)
    return loss
