"""AdamW over N models at once, (N, P): a learning rate, a clipped norm and a vote to stand still for each."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

# AdamW (arXiv 1711.05101) on PyTorch's fused kernel, with clipping by the global norm.
#
# ``torch.optim`` takes a second to import its compiler on first use, which a swarm of short runs would pay in every
# process; this calls the same kernel, and its state goes to a checkpoint by parameter name.

BETAS = (0.9, 0.95)
EPSILON = 1e-8


Tensors = list[Tensor]


def _update(
    values: Tensors,
    gradients: Tensors,
    averages: Tensors,
    squares: Tensors,
    counts: Tensors,
    rate: float,
    decay: float,
) -> None:
    """PyTorch's kernel, in place; ``counts`` are the numbers of the updates, counted from 1."""
    torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
        values,
        gradients,
        averages,
        squares,
        [],
        counts,
        lr=rate,
        beta1=BETAS[0],
        beta2=BETAS[1],
        weight_decay=decay,
        eps=EPSILON,
        amsgrad=False,
        maximize=False,
    )


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
    def norm(self) -> Tensor:
        """The joint norm of all gradients, ()."""
        norms = torch._foreach_norm(self._gradients(self.parameters))  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(torch.stack(norms))

    @torch.no_grad()
    def clip(self, limit: float, norm: float) -> None:
        """Scale all gradients, whose joint norm is ``norm``, so that it is at most ``limit``."""
        if norm > limit:
            gradients = self._gradients(self.parameters)
            torch._foreach_mul_(gradients, limit / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update, in place, from the parameters' gradients."""
        for matrices, decay in ((True, self.weight_decay), (False, 0.0)):
            group = {name: p for name, p in self.parameters.items() if (p.ndim >= 2) is matrices}
            _update(
                list(group.values()),
                self._gradients(group),
                [self.averages[name] for name in group],
                [self.squares[name] for name in group],
                [torch.tensor(float(self.steps + 1), device=p.device) for p in group.values()],
                learning_rate,
                decay,
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


class StackedAdamW:
    """The update of `AdamW` for each row of ``values`` (N, P), of which the first ``matrices`` decay.

    ``sizes`` are the lengths of its parts, ``averages`` and ``squares`` are the moments, laid out as ``values``.
    """

    def __init__(self, values: Tensor, sizes: Sequence[int], matrices: int, weight_decay: float) -> None:
        self.values, self.sizes, self.matrices, self.weight_decay = values, sizes, matrices, weight_decay
        self.averages, self.squares = torch.zeros_like(values), torch.zeros_like(values)

    @torch.no_grad()
    def step(self, gradients: Tensor, losses: Tensor, clip: float, schedule: Tensor) -> Tensor:
        """Clip each row's gradient to ``clip``, update the row in place; returns the norms before, (N,).

        ``schedule`` (N, 2) float64 holds each row's learning rate and the number of this update, counted from 1.
        A row whose loss or norm is not finite, or whose learning rate is 0, stays as it is; no other row notices.
        """
        # A row's norm is summed on its own: a reduction over all rows may be ordered by how many there are.
        norms = torch.stack([self._norm(row) for row in gradients])
        if gradients.device.type == "cpu":
            self._rows(gradients, losses, norms, clip, schedule)
        else:
            self.update_together(gradients, losses, norms, clip, schedule)
        return norms

    def _norm(self, row: Tensor) -> Tensor:
        """As `AdamW.clip` takes it: the norm of the norms of the parts."""
        parts = torch._foreach_norm(row.split(self.sizes))  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(torch.stack(parts))

    def _rows(self, gradients: Tensor, losses: Tensor, norms: Tensor, clip: float, schedule: Tensor) -> None:
        """One call of the fused kernel for matrices and scales of each row: each row passes the cache once."""
        moving = (torch.isfinite(losses) & torch.isfinite(norms) & (schedule[:, 0] > 0)).tolist()
        for row, (moves, norm, (rate, count)) in enumerate(
            zip(moving, norms.tolist(), schedule.tolist(), strict=True)
        ):
            if not moves:
                continue
            if norm > clip:
                gradients[row].mul_(clip / (norm + 1e-6))
            values = self.values[row].detach()
            for part, decay in (
                (slice(self.matrices), self.weight_decay),
                (slice(self.matrices, None), 0.0),
            ):
                _update(
                    [values[part]],
                    [gradients[row, part]],
                    [self.averages[row, part]],
                    [self.squares[row, part]],
                    [torch.tensor(count)],
                    rate,
                    decay,
                )

    @torch.no_grad()
    def update_together(
        self, gradients: Tensor, losses: Tensor, norms: Tensor, clip: float, schedule: Tensor
    ) -> None:
        """All rows by elementwise operations that never ask the host anything, so that a graph can hold them."""
        moving = (torch.isfinite(losses) & torch.isfinite(norms) & (schedule[:, 0] > 0)).unsqueeze(1)
        rates = torch.where(moving, schedule[:, :1], 0).to(gradients.dtype)
        first, second = (1 - beta ** schedule[:, 1:] for beta in BETAS)  # in float64, as the schedule is
        excess = norms.unsqueeze(1)
        scale = torch.where(excess > clip, clip / (excess + 1e-6), 1)
        gradients.copy_(torch.where(moving, gradients * scale, 0))
        values = self.values.detach()
        values[:, : self.matrices].mul_(1 - rates * self.weight_decay)
        self.averages.lerp_(gradients, 1 - BETAS[0])
        self.squares.mul_(BETAS[1]).addcmul_(gradients, gradients, value=1 - BETAS[1])
        root = (self.squares / second.to(gradients.dtype)).sqrt_().add_(EPSILON)
        values.sub_(self.averages / root * (rates / first.to(gradients.dtype)))
