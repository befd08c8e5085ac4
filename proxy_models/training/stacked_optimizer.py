"""AdamW over N models at once, (N, P): a learning rate, a clipped norm and a vote to stand still for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

from proxy_models.training.adamw import BETAS, EPSILON


class StackedAdamW:
    """The update of `adamw.AdamW` for each row of ``values`` (N, P), of which the first ``matrices`` decay.

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
        """As `adamw.AdamW.clip` takes it: the norm of the norms of the parts."""
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
                torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                    [values[part]],
                    [gradients[row, part]],
                    [self.averages[row, part]],
                    [self.squares[row, part]],
                    [],
                    [torch.tensor(count)],
                    lr=rate,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    weight_decay=decay,
                    eps=EPSILON,
                    amsgrad=False,
                    maximize=False,
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
