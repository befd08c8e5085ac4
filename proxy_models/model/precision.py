"""Products of training in bfloat16, which accelerators compute many times faster than float32.

What enters a product and what comes out of it is rounded to 8 significant bits; sums within it are float32. Weights,
moments, norms, the residual stream and softmax are float32, and so are the sums of the gradients that leave products.
Evaluation never rounds, so that BPB is that of the weights. A model of ``transformers`` is rounded where PyTorch's
autocast does.
"""

import torch
from torch import Tensor

from proxy_models.config import BFLOAT16, TrainingConfig


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
