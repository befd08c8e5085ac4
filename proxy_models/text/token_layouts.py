"""What trainers read token ids from, each layout in a directory of its own, written block by block.

What is written goes to the disk meanwhile, in another thread: a disk that waits for the end would double the time.

- ``olmo-core``: ``tokens.npy``, ids without a header, in the shard's type (OLMo-core's configuration says which).
- ``megatron``: ``tokens.bin`` and the ``tokens.idx`` of `megatron/core/datasets/indexed_dataset.py`. It has no
  uint32: ids over 65,535 are int32.
- ``streaming``: MDS shards of MosaicML Streaming, a row of int32 a sample, as its `MDSWriter` writes them.
- ``litdata``: chunks of int32 for litdata's `TokensLoader`, as its `Cache` writes them, each of whole rows.
- ``axolotl``: ``rows.parquet`` of ``input_ids``, ``attention_mask`` and ``labels``, which it takes as tokenized.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from proxy_models.storage import flush
from proxy_models.text.token_files import MEGATRON_INDEX

BLOCK = 2**22
"""Tokens that are written at once, at most."""
_CHUNK_BYTES = 2**26
"""Of a shard or chunk: what both trainers write without being told otherwise; of another file what is flushed."""


class Layout(ABC):
    """A directory's files: `add` takes the tokens in their order, block by block, and `close` ends them.

    ``background`` has one thread, which flushes.

    Attributes:
        told: what the trainer is told, within the directory; empty for the directory itself.
        sidecar: the note on what was written. Beside files that are read again it says their type and tokenizer.
        has_rows: whether rows are cut here, so that the length of one has to be known.
    """

    told: ClassVar[str] = ""
    sidecar: ClassVar[str] = "written.json"
    has_rows: ClassVar[bool] = False

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        self._directory, self._dtype, self._length = directory, self.dtype_of(dtype), length
        self._background, self._flushing = background, Future[None]()
        self._flushing.set_result(None)

    def _flush(self, file: Path) -> None:
        """Have it on the disk soon. Raises OSError where the last that was to be there cannot."""
        self._flushing.result()
        self._flushing = self._background.submit(flush, file)

    @classmethod
    def dtype_of(cls, own: np.dtype) -> np.dtype:
        """Of the ids as they are written, from the shard's."""
        return np.dtype("<i4")

    @abstractmethod
    def add(self, pieces: Sequence[np.ndarray]) -> None:
        """Write the next tokens, `BLOCK` of them at most, contiguous in each piece."""

    def close(self, lengths: np.ndarray) -> None:
        """End the files; (n,) tokens of the documents in their order."""
        self._flushing.result()


class Raw(Layout):
    """OLMo-core's ids."""

    told, sidecar = "tokens.npy", "tokens.npy.json"
    _data = told

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        super().__init__(directory, dtype, length, background)
        self._file = (directory / self._data).open("wb")
        self._unflushed = 0

    @classmethod
    def dtype_of(cls, own: np.dtype) -> np.dtype:
        """See `Layout`."""
        return own

    def add(self, pieces: Sequence[np.ndarray]) -> None:
        """See `Layout`."""
        block = np.concatenate(pieces, dtype=self._dtype)
        self._file.write(block.data)
        self._unflushed += block.nbytes
        if self._unflushed >= _CHUNK_BYTES:
            self._unflushed = 0
            self._flush(self._directory / self._data)

    def close(self, lengths: np.ndarray) -> None:
        """See `Layout`."""
        self._file.close()
        super().close(lengths)


class Megatron(Raw):
    """Megatron's ids and their index."""

    told, sidecar = "tokens", "tokens.bin.json"
    _data = "tokens.bin"
    _codes: ClassVar[Mapping[str, int]] = {"<u2": 8, "<i4": 4}

    @classmethod
    def dtype_of(cls, own: np.dtype) -> np.dtype:
        """See `Layout`."""
        return np.dtype("<i4") if own.itemsize > 2 else own

    def close(self, lengths: np.ndarray) -> None:
        """Magic, u64 version, u8 type, u64 sequences, u64 documents + 1, i32 lengths, i64 offsets, i64 documents."""
        super().close(lengths)
        count = len(lengths)
        offsets = np.zeros(count, np.int64)
        np.cumsum(lengths[:-1] * self._dtype.itemsize, out=offsets[1:])
        with (self._directory / "tokens.idx").open("wb") as file:
            file.write(MEGATRON_INDEX)
            file.write(np.array([1], "<u8").tobytes())
            file.write(np.array([self._codes[self._dtype.str]], "u1").tobytes())
            file.write(np.array([count, count + 1], "<u8").tobytes())
            file.write(lengths.astype("<i4").tobytes())
            file.write(offsets.astype("<i8").tobytes())
            file.write(np.arange(count + 1, dtype="<i8").tobytes())


class _Rows(Layout):
    """Chunks of whole rows; what is left behind the last whole row is not written."""

    has_rows = True

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        super().__init__(directory, dtype, length, background)
        self._most = max(_CHUNK_BYTES // (length * self._dtype.itemsize), 1) * length
        # One buffer for all chunks: new pages for each would take longer than copying into it.
        self._buffer, self._filled = np.empty(self._most + BLOCK, self._dtype), 0

    def add(self, pieces: Sequence[np.ndarray]) -> None:
        """See `Layout`."""
        end = self._filled + sum(map(len, pieces))
        np.concatenate(pieces, out=self._buffer[self._filled : end], casting="same_kind")
        while end >= self._most:
            self._put(self._buffer[: self._most].reshape(-1, self._length))
            end -= self._most
            self._buffer[:end] = self._buffer[self._most : self._most + end]
        self._filled = end

    def close(self, lengths: np.ndarray) -> None:
        """See `Layout`."""
        if rows := self._filled // self._length:
            self._put(self._buffer[: rows * self._length].reshape(rows, self._length))
        self._end()
        super().close(lengths)

    @abstractmethod
    def _put(self, rows: np.ndarray) -> None:
        """Write (n, length) ids."""

    @abstractmethod
    def _end(self) -> None:
        """Write what goes with the chunks."""


class Mds(_Rows):
    """Streaming's shards and index."""

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        super().__init__(directory, dtype, length, background)
        self._said: dict[str, Any] = {
            "column_encodings": [f"ndarray:int32:{length}"],
            "column_names": ["tokens"],
            "column_sizes": [length * self._dtype.itemsize],
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": _CHUNK_BYTES,
            "version": 2,
        }
        self._shards: list[dict[str, Any]] = []

    def _put(self, rows: np.ndarray) -> None:
        said = json.dumps(self._said, sort_keys=True).encode()
        head = 4 + 4 * (len(rows) + 1) + len(said)
        offsets = head + np.arange(len(rows) + 1, dtype=np.int64) * rows[0].nbytes
        name = f"shard.{len(self._shards):05d}.mds"
        with (self._directory / name).open("wb") as file:
            file.write(np.array([len(rows)], "<u4").tobytes() + offsets.astype("<u4").tobytes() + said)
            file.write(rows.data)
        self._flush(self._directory / name)
        raw = {"basename": name, "bytes": head + rows.nbytes, "hashes": {}}
        self._shards.append({**self._said, "raw_data": raw, "samples": len(rows), "zip_data": None})

    def _end(self) -> None:
        index = json.dumps({"shards": self._shards, "version": 2}, sort_keys=True)
        (self._directory / "index.json").write_text(index)


class LitData(_Rows):
    """litdata's chunks and index: one item a chunk, for `TokensLoader` cuts rows itself."""

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        super().__init__(directory, dtype, length, background)
        self._chunks: list[dict[str, Any]] = []

    def _put(self, rows: np.ndarray) -> None:
        name, head = f"chunk-0-{len(self._chunks)}.bin", 12
        with (self._directory / name).open("wb") as file:
            file.write(np.array([1, head, head + rows.nbytes], "<u4").tobytes())
            file.write(rows.data)
        self._flush(self._directory / name)
        said = {"chunk_bytes": head + rows.nbytes, "chunk_size": 1, "dim": rows.size, "filename": name}
        self._chunks.append(said)

    def _end(self) -> None:
        leaf = [1, {"type": None, "context": None, "children_spec": []}]
        config = {
            "chunk_bytes": _CHUNK_BYTES,
            "chunk_size": None,
            "compression": None,
            "data_format": ["no_header_tensor:16"],  # torch.int32
            "data_spec": json.dumps(leaf),
            "encryption": None,
            "item_loader": "TokensLoader",
        }
        index = json.dumps({"chunks": self._chunks, "config": config}, sort_keys=True)
        (self._directory / "index.json").write_text(index)


class Axolotl(_Rows):
    """A table of rows, as often as the mixture reads them: Axolotl joins data sets and weighs none."""

    told = "rows.parquet"

    def __init__(self, directory: Path, dtype: np.dtype, length: int, background: Executor) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(directory, dtype, length, background)
        kinds = {"input_ids": pa.int32(), "attention_mask": pa.int8(), "labels": pa.int32()}
        self._schema = pa.schema([(name, pa.list_(kind)) for name, kind in kinds.items()])
        self._file = pq.ParquetWriter(directory / self.told, self._schema, compression="zstd")

    def _put(self, rows: np.ndarray) -> None:
        import pyarrow as pa

        ends = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * self._length)
        ids, ones = rows.reshape(-1), np.ones(rows.size, np.int8)
        columns = [pa.ListArray.from_arrays(ends, pa.array(values)) for values in (ids, ones, ids)]
        self._file.write_table(pa.table(columns, schema=self._schema))

    def _end(self) -> None:
        self._file.close()


LAYOUTS: Mapping[str, type[Layout]] = {
    "olmo-core": Raw,
    "megatron": Megatron,
    "streaming": Mds,
    "litdata": LitData,
    "axolotl": Axolotl,
}
