"""Pre-tokenized files: ``.npy`` arrays and raw ``.bin`` files with a JSON sidecar. Free of torch.

``tokens.bin`` needs ``tokens.bin.json`` beside it: ``{"dtype": "uint16"}`` (uint16, uint32, int32 or int64,
little-endian). The ids must be those of the domain set's tokenizer, which also decodes them for the bytes of
BPB, and documents end with its end-of-text id (or with ``"end_of_text": id`` in the sidecar, which an ``.npy``
may have too).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

import numpy as np

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import Digests, open_data

TokenArray = np.ndarray[tuple[int], np.dtype[np.integer]]
SUFFIXES = (".npy", ".bin")
DTYPES = ("uint16", "uint32", "int32", "int64")
MAX_DOCUMENT_TOKENS = 2**22
END_OF_TEXT = "<|endoftext|>"
KNOWN_END_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|im_end|>")
"""What tokenizers call it; the first is ours."""
DEFINITION, SETTINGS = "tokenizer.json", "tokenizer_config.json"
TOKENIZER_FILES = (
    DEFINITION,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)
"""What a Hugging Face folder has of its tokenizer."""
LARGEST_TOKENIZER = 2**28
"""Bytes of a definition, which is read whole; a vocabulary of 262,144 takes an eighth."""


def is_pretokenized(path: DataPath) -> bool:
    """Whether the suffix says that the file holds token ids."""
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class _Layout:
    """Of the ids in an opened file; ``end_of_text`` is what its sidecar says, if anything."""

    dtype: np.dtype[Any]
    count: int
    end_of_text: object


@contextmanager
def _naming(path: DataPath) -> Iterator[None]:
    """Turn what reading raises into `CorpusError`."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(path, None, f"cannot be read as token ids: {error}") from error


def _sidecar(path: DataPath, digests: Digests | None) -> dict[str, object]:
    sidecar = path.with_name(path.name + ".json")
    try:
        with open_data(sidecar, digests) as file:
            content = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CorpusError(sidecar, None, f"not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorpusError(sidecar, None, "not a JSON object")
    return content


def _layout(path: DataPath, stream: BufferedReader, digests: Digests | None = None) -> _Layout:
    """Read up to the first id. Raises `CorpusError`: empty, cut short, or not a row of integers."""
    sidecar, size = _sidecar(path, digests), path.stat().st_size
    if path.suffix.lower() == ".npy":
        with _naming(path):
            shape, dtype = _npy_header(stream)
        size -= stream.tell()
    elif (name := sidecar.get("dtype")) not in DTYPES:
        reason = f"needs {path.name}.json beside it with a dtype out of {', '.join(DTYPES)}"
        raise CorpusError(path, None, reason)
    else:
        dtype = np.dtype(str(name)).newbyteorder("<")
        if size % dtype.itemsize:
            raise CorpusError(path, None, f"is not a whole number of {name} ids")
        shape = (size // dtype.itemsize,)
    if len(shape) != 1 or dtype.newbyteorder("=").name not in DTYPES:
        raise CorpusError(path, None, f"is {dtype} of shape {shape}, not a row of token ids")
    if not shape[0]:
        raise CorpusError(path, None, "holds no tokens")
    if shape[0] * dtype.itemsize > size:
        raise CorpusError(path, None, f"cannot be read as token ids: it ends before the last of {shape[0]}")
    return _Layout(dtype, shape[0], sidecar.get("end_of_text"))


def _npy_header(stream: BufferedReader) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def tokens_size(path: DataPath) -> int:
    """Bytes of the ids, without reading them. Raises `CorpusError`: unreadable, empty, or not a row of integers."""
    with _naming(path):
        stream = open_data(path)
    with stream:
        layout = _layout(path, stream)
    return layout.count * layout.dtype.itemsize


def read_token_documents(
    path: DataPath, end_of_text: int, vocabulary_size: int, digests: Digests | None = None
) -> Iterator[TokenArray]:
    """The documents of a pre-tokenized file, without their end-of-text ids.

    A document over `MAX_DOCUMENT_TOKENS` is cut there. Raises `CorpusError` as `tokens_size` does, and for an id
    outside the vocabulary. ``digests`` as in `corpus.read_documents`; the sidecar has one of its own.
    """
    with _naming(path):
        stream = open_data(path, digests)
    with stream:
        layout = _layout(path, stream, digests)
        own = end_of_text if layout.end_of_text is None else layout.end_of_text
        if not isinstance(own, int):
            raise CorpusError(path, None, f"its sidecar's end_of_text {own!r} is not a token id")
        window, start, left = np.empty(0, layout.dtype), 0, layout.count
        while left or len(window):
            count = min(left, MAX_DOCUMENT_TOKENS - len(window))
            with _naming(path):
                read = np.frombuffer(stream.read(count * layout.dtype.itemsize), layout.dtype, count)
            window, left = np.concatenate((window, read)), left - count
            if (outside := np.flatnonzero((window >= vocabulary_size) | (window < 0))).size:
                at = int(outside[0])
                reason = (
                    f"id {window[at]} at position {start + at} is outside the tokenizer's {vocabulary_size}"
                )
                raise CorpusError(path, None, reason)
            ends = np.flatnonzero(window == own)
            borders = [*ends.tolist(), *([] if left and ends.size else [len(window)])]
            begin = 0
            for end in borders:
                if end > begin:
                    yield window[begin:end]
                begin = end + 1
            start += min(begin, len(window))
            window = window[begin:]
        with _naming(path):
            while stream.read(2**20):
                pass  # what an array has behind its ids is part of the file
