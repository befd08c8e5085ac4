"""Checkpoints that several processes write and any number of them reads: PyTorch's own format."""

from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from proxy_models.errors import DataMissing


class SavedShards(dict[str, Tensor]):
    """The tensors of a folder that `save_shards` wrote, of which nothing is read before it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def read_into(self, state: dict[str, Tensor]) -> None:
        """Fill the tensors, each process its part. Raises `DataMissing`."""
        self._read(state, no_dist=not torch.distributed.is_initialized())

    def whole(self) -> dict[str, Tensor]:
        """All tensors, on the CPU of this process alone. Raises `DataMissing`."""
        try:
            stored = FileSystemReader(self.folder).read_metadata().state_dict_metadata
        except Exception as error:  # whatever reading a pickle raises
            raise DataMissing(self.folder, f"is not a readable checkpoint ({error})") from error
        state = {
            name: torch.empty(about.size, dtype=about.properties.dtype)
            for name, about in stored.items()
            if isinstance(about, TensorStorageMetadata)
        }
        self._read(state, no_dist=True)
        return state

    def _read(self, state: dict[str, Tensor], no_dist: bool) -> None:
        try:
            load(state, checkpoint_id=self.folder, no_dist=no_dist)
        except (CheckpointException, OSError, KeyError, RuntimeError) as error:
            raise DataMissing(self.folder, f"is not a readable checkpoint ({error})") from error


def save_shards(folder: Path, state: dict[str, Tensor]) -> None:
    """Write the tensors, each process its own part, into a folder that all of them see. Raises `StorageFailed`."""
    save(state, checkpoint_id=folder, no_dist=not torch.distributed.is_initialized())
