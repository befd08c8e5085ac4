"""Matrix products on the CPU by the library that is faster there: MKL on Intel's processors, oneDNN on others.

PyTorch sends a float32 product on the CPU to MKL, which on machines it does not know takes a slower path: on one AMD
core with AVX-512 it reached 110 GFLOP/s where oneDNN reached 230 (1024 x 64 x 4096). On an Intel core of the same
instructions oneDNN needs 50 us before it begins, as long as MKL takes for a whole small product: 128 x 64 x 192 took
33 us against 65, and its weight's gradient 33 against 124. The library is chosen by the processor's name and never
by a measurement: a run that is killed and goes on has to find the same numbers.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from proxy_models.planning.memory import processor_name


def has_onednn() -> bool:
    """Whether this build of PyTorch has oneDNN and its linear operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


ONEDNN = has_onednn() and not (torch.backends.mkl.is_available() and "Intel" in processor_name())


def by_onednn(operand: Tensor) -> bool:
    """Whether a product with the operand goes to oneDNN, which reads transposed operands in place."""
    return ONEDNN and operand.device.type == "cpu" and operand.dtype == torch.float32


def product(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right.T`` for (M, K) and (N, K), either possibly a transposed view; no gradient."""
    if by_onednn(left):
        return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return left @ right.t()


def weight_gradient(inputs: Tensor, gradient: Tensor) -> Tensor:
    """``gradient.T @ inputs``: (N, K) from inputs (M, K) and output gradient (M, N).

    oneDNN is up to twice as fast when the longer side of the result is the contiguous one, so a tall
    result is computed transposed.
    """
    if by_onednn(inputs) and gradient.shape[1] > inputs.shape[1]:
        return product(inputs.t(), gradient.t()).t()
    return product(gradient.t(), inputs.t())


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        return product(gradient, weight.t()), weight_gradient(inputs, gradient).contiguous()


def linear(inputs: Tensor, weight: Tensor) -> Tensor:
    """``inputs @ weight.T`` with gradients, in the precision of ``inputs``: (..., K), weight (N, K) -> (..., N)."""
    weight = weight.to(inputs.dtype)
    if not by_onednn(inputs):
        return functional.linear(inputs, weight)
    flat = _Linear.apply(inputs.reshape(-1, inputs.shape[-1]), weight)
    assert isinstance(flat, Tensor)
    return flat.view(*inputs.shape[:-1], weight.shape[0])


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return torch.stack([product(*one) for one in zip(inputs, weight, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        inputs_gradient = [product(one, matrix.t()) for one, matrix in zip(gradient, weight, strict=True)]
        return torch.stack(inputs_gradient), torch.stack(
            [weight_gradient(*one) for one in zip(inputs, gradient, strict=True)]
        )


def stacked_linear(inputs: Tensor, weight: Tensor) -> Tensor:
    """Each model's ``inputs @ weight.T`` with gradients: inputs (N, B, T, K), weight (N, O, K) -> (N, B, T, O).

    On the CPU these are the products `linear` computes, bit for bit.
    PyTorch's compiler takes the oneDNN operator with constant weights only and is given the batched product.
    """
    flat = inputs.flatten(1, 2)
    if by_onednn(inputs) and not torch.compiler.is_compiling():
        mixed = _StackedLinear.apply(flat, weight)
        assert isinstance(mixed, Tensor)
    else:
        mixed = torch.bmm(flat, weight.transpose(1, 2))
    return mixed.view(*inputs.shape[:3], weight.shape[1])
