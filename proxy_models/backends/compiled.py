"""The body of a stack through PyTorch's compiler, where there is one that works."""

import functools

import torch

from proxy_models.model.stacked_model import Body, hidden_states

SHAPES = 64
"""Compiled shapes kept in a process; PyTorch's default of 8 would silently go on uncompiled."""


@functools.cache
def compiled_body() -> Body:
    """`hidden_states`, compiled once for each shape at its first use (20 s, then kept on disk).

    Norms, rotations and SwiGLU become single passes over memory. The numbers agree with the uncompiled ones to
    rounding, not bit for bit.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(hidden_states, dynamic=False)


@functools.cache
def compiler_problem(device: str = "cpu") -> str | None:
    """Why nothing can be compiled here, or None: most often there is no C++ compiler."""
    try:
        double = torch.compile(lambda x: x * 2 + 1, dynamic=False)
        double(torch.ones(8, device=device))
    except Exception as error:  # the compiler's own errors, those of the C++ compiler and of the platform
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None
