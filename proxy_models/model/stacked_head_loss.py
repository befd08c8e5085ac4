"""Output head and cross-entropy of N models: `head_loss` with a leading model axis."""

import torch
from torch import Tensor

from proxy_models.model.head_loss import SMALLEST_PROBABILITY, loss_and_gradients, probabilities

BLOCK_LOGITS = 2**28
"""Logits of all models held at once on an accelerator (1 GiB in float32)."""


def stacked_loss_and_gradients(
    hidden: Tensor, weight: Tensor, targets: Tensor, weight_gradient: Tensor
) -> tuple[Tensor, Tensor]:
    """Each model's mean cross-entropy in nats (N,) and the gradients of its own loss.

    Shapes: hidden (N, n, W), weight (N, V, W), targets (N, n) int64. The gradient of hidden is returned, that of
    weight is written to ``weight_gradient``, whatever lies there. bfloat16 as in `head_loss.loss_and_gradients`.
    """
    found = _one_after_another if hidden.device.type == "cpu" else together
    return found(hidden, weight, targets, weight_gradient)


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
