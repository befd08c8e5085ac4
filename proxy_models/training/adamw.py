"""AdamW (arXiv 1711.05101) on PyTorch's fused kernel, with clipping by the global norm.

``torch.optim`` takes a second to import its compiler on first use, which a swarm of short runs would pay in every
process; this calls the same kernel, and its state goes to a checkpoint by parameter name.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

BETAS = (0.9, 0.95)
EPSILON = 1e-8


class AdamW:
    """Decoupled weight decay on matrices; none on norms' scales."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], weight_decay: float) -> None:
        # matrices first, as `stacked_model` lays them out: norms are then summed in one order everywhere
        self.parameters = dict(sorted(parameters, key=lambda item: item[1].ndim < 2))
        self.weight_decay = weight_decay
        self.averages = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.squares = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def clip(self, norm: float) -> float:
        """Scale all gradients so that their joint norm is at most ``norm``; returns the norm before."""
        gradients = self._gradients(self.parameters)
        norms = torch._foreach_norm(gradients)  # pyright: ignore[reportPrivateImportUsage]
        total = float(torch.linalg.vector_norm(torch.stack(norms)))
        if total > norm:
            torch._foreach_mul_(gradients, norm / (total + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        return total

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update, in place, from the parameters' gradients."""
        for matrices, decay in ((True, self.weight_decay), (False, 0.0)):
            group = {name: p for name, p in self.parameters.items() if (p.ndim >= 2) is matrices}
            torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                list(group.values()),
                self._gradients(group),
                [self.averages[name] for name in group],
                [self.squares[name] for name in group],
                [],
                [torch.tensor(float(self.steps + 1), device=p.device) for p in group.values()],
                lr=learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )
        self.steps += 1

    def fill_gradients(self) -> None:
        """Zero where the loss did not reach, as an expert no token was sent to."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def zero_gradients(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Both moments by parameter name, for a checkpoint; `steps` is kept apart."""
        return {
            **{f"average.{name}": moment for name, moment in self.averages.items()},
            **{f"square.{name}": moment for name, moment in self.squares.items()},
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Take over the moments of `state` after ``steps`` updates."""
        for name in self.parameters:
            self.averages[name].copy_(state[f"average.{name}"])
            self.squares[name].copy_(state[f"square.{name}"])
        self.steps = steps

    @staticmethod
    def _gradients(group: Mapping[str, Tensor]) -> list[Tensor]:
        return [p.grad for p in group.values() if p.grad is not None]
