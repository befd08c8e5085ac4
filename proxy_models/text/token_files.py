"""Pre-tokenized files: ``.npy`` arrays and raw ``.bin`` files with a JSON sidecar. Free of torch.

``tokens.bin`` needs ``tokens.bin.json`` beside it: ``{"dtype": "uint16"}`` (uint16, uint32, int32 or int64,
little-endian). The ids must be those of the domain set's tokenizer, which also decodes them for the bytes of
BPB, and documents end with its end-of-text id (or with ``"end_of_text": id`` in the sidecar, which an ``.npy``
may have too).
"""

import json
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import open_data, open_mappable

TokenArray = np.ndarray[tuple[int], np.dtype[np.integer]]
SUFFIXES = (".npy", ".bin")
DTYPES = ("uint16", "uint32", "int32", "int64")
MAX_DOCUMENT_TOKENS = 2**22
END_OF_TEXT = "<|endoftext|>"
KNOWN_END_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|im_end|>")
"""What tokenizers call it; the first is ours."""


def is_pretokenized(path: DataPath) -> bool:
    """Whether the suffix says that the file holds token ids."""
    return path.suffix.lower() in SUFFIXES


def _sidecar(path: DataPath) -> dict[str, object]:
    sidecar = path.with_name(path.name + ".json")
    try:
        with open_data(sidecar) as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CorpusError(sidecar, None, f"not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorpusError(sidecar, None, "not a JSON object")
    return content


def open_tokens(path: DataPath) -> TokenArray:
    """The ids, mapped and not read. Raises `CorpusError`: unreadable, empty, or not a row of integers."""
    try:
        if path.suffix.lower() == ".npy":
            # mapped by its descriptor: this file, whatever the name means by now
            with open_mappable(path) as file:
                tokens = np.load(f"/dev/fd/{file.fileno()}", mmap_mode="r", allow_pickle=False)
        else:
            dtype = _raw_dtype(path)
            with open_mappable(path) as file:
                tokens = np.memmap(file, dtype, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(path, None, f"cannot be read as token ids: {error}") from error
    _check_row(path, tokens.shape, tokens.dtype)
    return tokens


def _raw_dtype(path: DataPath) -> np.dtype[np.integer]:
    name = _sidecar(path).get("dtype")
    if name not in DTYPES:
        reason = f"needs {path.name}.json beside it with a dtype out of {', '.join(DTYPES)}"
        raise CorpusError(path, None, reason)
    dtype = np.dtype(str(name)).newbyteorder("<")
    if path.stat().st_size % dtype.itemsize:
        raise CorpusError(path, None, f"is not a whole number of {name} ids")
    return dtype


def tokens_size(path: DataPath) -> int:
    """Bytes of the ids, of an object without reading them. Raises `CorpusError` like `open_tokens`."""
    if isinstance(path, Path):
        return open_tokens(path).nbytes
    if path.suffix.lower() == ".npy":
        with open_data(path) as file:
            shape, dtype = _npy_header(path, file)
    else:
        dtype = _raw_dtype(path)
        shape = (path.stat().st_size // dtype.itemsize,)
    _check_row(path, shape, dtype)
    return shape[0] * dtype.itemsize


def _npy_header(path: DataPath, file: BufferedReader) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    except ValueError as error:
        raise CorpusError(path, None, f"cannot be read as token ids: {error}") from error
    return shape, dtype


def _check_row(path: DataPath, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 1 or dtype.newbyteorder("=").name not in DTYPES:
        raise CorpusError(path, None, f"is {dtype} of shape {shape}, not a row of token ids")
    if not shape[0]:
        raise CorpusError(path, None, "holds no tokens")


def read_token_documents(path: DataPath, end_of_text: int, vocabulary_size: int) -> Iterator[TokenArray]:
    """The documents of a pre-tokenized file, without their end-of-text ids.

    A document over `MAX_DOCUMENT_TOKENS` is cut there. Raises `CorpusError` for an id outside the vocabulary.
    """
    tokens = open_tokens(path)
    own = _sidecar(path).get("end_of_text", end_of_text)
    if not isinstance(own, int):
        raise CorpusError(path, None, f"its sidecar's end_of_text {own!r} is not a token id")
    start = 0
    while start < len(tokens):
        window = np.asarray(tokens[start : start + MAX_DOCUMENT_TOKENS])
        if (outside := np.flatnonzero((window >= vocabulary_size) | (window < 0))).size:
            at = start + int(outside[0])
            reason = f"id {tokens[at]} at position {at} is outside the tokenizer's {vocabulary_size}"
            raise CorpusError(path, None, reason)
        ends = np.flatnonzero(window == own)
        last = start + len(window) >= len(tokens)
        borders = [*ends.tolist(), *([len(window)] if last or not ends.size else [])]
        begin = 0
        for end in borders:
            if end > begin:
                yield window[begin:end]
            begin = end + 1
        start += min(begin, len(window))
