"""Output head and cross-entropy of N models: `head_loss` with a leading model axis."""

from typing import Any

import torch
from torch import Tensor

from proxy_models.head_loss import SMALLEST_PROBABILITY, loss_and_gradients

BLOCK_LOGITS = 2**28
"""Logits of all models held at once on an accelerator (1 GiB in float32)."""


class _StackedHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        found = _one_after_another if hidden.device.type == "cpu" else together
        losses, hidden_gradient, weight_gradient = found(hidden, weight, targets)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        gradient = gradients[0].view(-1, 1, 1)
        return hidden_gradient * gradient, weight_gradient * gradient, None


def _one_after_another(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """On a CPU the logits of one block of one model stay in the cache; those of N models would not."""
    found = [loss_and_gradients(*one) for one in zip(hidden, weight, targets, strict=True)]
    losses, hidden_gradients, weight_gradients = zip(*found, strict=True)
    return torch.stack(losses), torch.stack(hidden_gradients), torch.stack(weight_gradients)


def together(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (N,) and the gradients of each model's own loss, by batched products over blocks of positions."""
    models, count, _ = hidden.shape
    block = max(1, BLOCK_LOGITS // (models * weight.shape[1]))
    gold = hidden.new_empty(models, count, 1)
    hidden_gradient, weight_gradient = torch.empty_like(hidden), torch.zeros_like(weight)
    for start in range(0, count, block):
        rows = slice(start, start + block)
        index = targets[:, rows].unsqueeze(2)
        difference = torch.softmax(torch.bmm(hidden[:, rows], weight.transpose(1, 2)), dim=-1)
        gold[:, rows] = difference.gather(2, index)
        difference.scatter_(2, index, gold[:, rows] - 1)
        hidden_gradient[:, rows] = torch.bmm(difference, weight)
        weight_gradient.baddbmm_(difference.transpose(1, 2), hidden[:, rows])
    losses = gold.clamp_(min=SMALLEST_PROBABILITY).log_().mean(dim=(1, 2)).neg_()
    return losses, hidden_gradient.div_(count), weight_gradient.div_(count)


def stacked_head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of each model: hidden (N, n, W), weight (N, V, W), targets (N, n) int64 -> (N,).

    Differentiable once; as `head_loss`, call it only where gradients are wanted.
    """
    losses = _StackedHeadLoss.apply(hidden, weight, targets)
    assert isinstance(losses, Tensor)
    return losses
