"""What keeps the router of a mixture of experts in order."""

from collections.abc import Sequence

import torch
from torch import Tensor


def router_z_loss(router_logits: Sequence[Tensor]) -> Tensor:
    """Mean over layers and tokens of (logsumexp of the router's logits)^2; each (tokens, E) -> scalar.

    ST-MoE (arXiv 2202.08906), equation 5; OLMoE (arXiv 2409.02060) adds 0.001 times it to the loss.
    """
    layers = [torch.logsumexp(logits.float(), dim=-1).square().mean() for logits in router_logits]
    return torch.stack(layers).mean()
