"""Output head and cross-entropy in one pass, so that the logits never leave the cache.

With width 64 and a vocabulary of 4096 the head is most of the arithmetic, and (tokens, 4096) logits written
and read by each of softmax, loss and their gradients would cost more than the products. Here a block of
tokens at a time goes from hidden states to its loss and its gradients; only the gradients are kept.
"""

from typing import Any

import torch
from torch import Tensor

from proxy_models.model.products import ONEDNN, by_onednn, product

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

    Where hidden and weight are bfloat16 (`precision`), so are the products; the last stays float32.
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
        weight_gradient.copy_(summed.t().contiguous())
    loss = gold.clamp_(min=SMALLEST_PROBABILITY).log_().mean().neg_()
    return loss, hidden_gradient.div_(count)


class _HeadLoss(torch.autograd.Function):
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
