"""The processes that train one model together, as ``torchrun`` starts them; one alone needs none of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from proxy_models.errors import InvalidSpec

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long one waits for the others: the first writes the model of a large run meanwhile."""


@dataclass(frozen=True)
class Processes:
    """``count`` processes of which this is number ``rank``. Whatever is asked of them, all of them have to ask."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes results and tells how far the run is."""
        return self.rank == 0

    def rows(self, batch_rows: int) -> slice:
        """This process's rows of every batch. Raises `InvalidSpec` where they cannot be dealt evenly."""
        own, left = divmod(batch_rows, self.count)
        if left:
            raise InvalidSpec(
                f"{self.count} processes cannot share batches of {batch_rows} rows evenly; give a multiple",
                "batch_rows",
            )
        return slice(self.rank * own, (self.rank + 1) * own)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def total_array(self, values: np.ndarray, device: str) -> np.ndarray:
        """The sum of an array over all processes; in float64 wherever the device has it."""
        if self.count == 1:
            return values
        return self.total(torch.from_numpy(values).to(device)).cpu().numpy()

    def any(self, flag: bool, device: str) -> bool:
        """Whether one of them says so."""
        if self.count == 1:
            return flag
        return self.total(torch.tensor(float(flag), device=device)).item() > 0

    def same(self, value: T) -> T:
        """The first one's value."""
        if self.count == 1:
            return value
        told = [value]
        torch.distributed.broadcast_object_list(told)
        return told[0]

    def wait(self) -> None:
        """Until all of them are here."""
        if self.count > 1:
            torch.distributed.barrier()


ALONE = Processes()


@contextmanager
def joined(kind: str) -> Iterator[tuple[Processes, str]]:
    """Meet the others that ``torchrun`` started; answers them and the device of this one, of the ``kind`` given.

    Started by hand, without ``WORLD_SIZE``, a process is alone. Gloo carries a CPU's tensors, NCCL a GPU's.
    """
    count, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    device = f"{kind}:{local}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(local)
    if count == 1:
        yield ALONE, device
        return
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=TIMEOUT)
    processes = Processes(torch.distributed.get_rank(), count)
    try:
        yield processes, device
        processes.wait()  # one that leaves while another still reads what it was sent takes it down
    finally:
        torch.distributed.destroy_process_group()
