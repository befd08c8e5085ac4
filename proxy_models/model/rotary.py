"""Rotary positions (arXiv 2104.09864), halves rotated against each other as in GPT-NeoX and Llama."""

import torch
from torch import Tensor


def rotation_table(length: int, head_size: int, base: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cosines and signed sines of positions 0..length-1: (2, length, head_size).

    Row 1 holds ``-sin`` for the first half and ``sin`` for the second, so that a rotation is
    ``x * table[0] + swapped_halves(x) * table[1]``. Angles are computed in float64.
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
