"""Checkpoints that several processes write and any number of them reads: safetensors, by PyTorch's own engine.

Its usual format has an index that is a pickle; a checkpoint may come from a store that others write to.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
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
            stored = HuggingFaceStorageReader(str(self.folder)).read_metadata().state_dict_metadata
        except (SafetensorError, OSError, KeyError, ValueError) as error:
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
            load(state, storage_reader=HuggingFaceStorageReader(str(self.folder)), no_dist=no_dist)
        except (CheckpointException, SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise DataMissing(self.folder, f"is not a readable checkpoint ({error})") from error


def save_shards(folder: Path, state: dict[str, Tensor]) -> None:
    """Write the tensors, each process its own part, into a folder that all of them see. Raises `StorageFailed`."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    save(state, storage_writer=writer, no_dist=not torch.distributed.is_initialized())
