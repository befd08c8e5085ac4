"""Backends by name."""

import functools
from collections.abc import Sequence

import torch

from proxy_models.backends.backend import (
    COMPILED,
    GRAPH,
    ONE_BY_ONE,
    STACKED,
    STACKED_COMPILED,
    Backend,
    OneByOne,
)
from proxy_models.backends.stacked import EachStacked, Graphed, Stacked
from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.model.stacked_model import Body, hidden_states
from proxy_models.training.step import Shape

# The body of a stack through PyTorch's compiler, where there is one that works.

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


NAMES = (ONE_BY_ONE, COMPILED, STACKED, STACKED_COMPILED, GRAPH)


def available(device: str, compiled: bool = True) -> tuple[str, ...]:
    """The backends that can run on the device; ``compiled`` false leaves out those that need seconds to find out."""
    names = [ONE_BY_ONE, STACKED]
    if compiled and compiler_problem(device) is None:
        names += [COMPILED, STACKED_COMPILED]
    if torch.device(device).type == "cuda":
        names.append(GRAPH)
    return tuple(name for name in NAMES if name in names)


def stackable(model: Shape, backend: str) -> ModelConfig:
    """The shape as a stack can train it; raises `InvalidSpec` for a model of ``transformers``."""
    if not isinstance(model, ModelConfig):
        raise InvalidSpec(
            f"the backend {backend!r} trains named sizes only; train {model.name} with {ONE_BY_ONE!r}",
            "backend",
        )
    return model


def build(
    name: str,
    model: Shape,
    trainings: Sequence[TrainingConfig],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backend:
    """The backend called ``name`` for one model of each ``trainings``, of one shape. Raises `InvalidSpec`."""
    match name:
        case "one-by-one":
            return OneByOne(model, trainings, device, dtype)
        case "one-by-one-compiled":
            return EachStacked(stackable(model, name), trainings, device, dtype, compiled_body())
        case "stacked":
            return Stacked(stackable(model, name), trainings, device, dtype)
        case "stacked-compiled":
            return Stacked(stackable(model, name), trainings, device, dtype, compiled_body())
        case "cuda-graph":
            return Graphed(stackable(model, name), trainings, device, dtype)
    raise InvalidSpec(f"unknown backend {name!r}; the backends are {', '.join(NAMES)}", "backend")
