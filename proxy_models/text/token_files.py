"""Files of token ids, as NumPy, OLMo, Megatron and datatrove write them. Free of torch.

- ``.npy`` as `numpy.save` writes it, or as OLMo does: ids without a header, of the smallest type that holds the
  tokenizer's, or of the one that ``tokens.npy.json`` beside it says.
- ``.bin`` with ``tokens.bin.json`` beside it: ``{"dtype": "uint16"}`` (uint16, uint32, int32 or int64,
  little-endian).
- ``.bin`` with the ``.idx`` of Megatron (megatron/core/datasets/indexed_dataset.py): documents are told by it.
- ``.ds`` with the ``.ds.index`` of datatrove: where each document ends, in tokens.

The ids must be those of the domain set's tokenizer, which also decodes them for the bytes of BPB; a sidecar may have
``"tokenizer"``, its fingerprint, and is then held to it. Where no index tells them, documents end with the
tokenizer's end-of-text id, or with ``"end_of_text": id`` of the sidecar; ``null`` there says that none does.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxy_models.errors import CorpusError
from proxy_models.stores.object_path import DataPath
from proxy_models.text.data_roots import open_data
from proxy_models.text.formats.opened import HEAD_BYTES, OpenedFile

TokenArray = np.ndarray[tuple[int], np.dtype[np.integer]]
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


SUFFIXES = (".npy", ".bin", ".ds")
"""Of files whose content does not say what they are."""
MEGATRON_INDEX = b"MMIDIDX\x00\x00"
_MEGATRON_DTYPES = {4: "int32", 5: "int64", 8: "uint16"}
HIGH_HALF = 15
"""What the upper two bytes of an id are at most, of a vocabulary of up to a million."""
SURE_IDS = 1024
"""So many without an end-of-text id are no document, so many documents of one id are none."""


@dataclass(frozen=True)
class TokenLayout:
    """Where the ids of a file are.

    Attributes:
        dtype: of one.
        count: how many.
        sidecar: what is said about them.
        ends: of every document, in ids from the first; None where an end-of-text id tells.
    """

    dtype: np.dtype[Any]
    count: int
    sidecar: dict[str, object]
    ends: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of the ids."""
        return self.count * self.dtype.itemsize


def beside(path: DataPath) -> list[DataPath]:
    """The files that may say what is in a file of token ids of that name."""
    if path.suffix.lower() not in SUFFIXES:
        return []
    index = (
        path.with_suffix(".idx") if path.suffix.lower() == ".bin" else path.with_name(f"{path.name}.index")
    )
    return [path.with_name(f"{path.name}.json"), index]


def sidecar_of(file: OpenedFile) -> dict[str, object]:
    """What ``FILE.json`` beside it says. Raises `CorpusError` where that is no JSON object."""
    path = file.path.with_name(file.path.name + ".json")
    try:
        with open_data(path, file.digests) as stream:
            content = json.load(stream)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CorpusError(path, None, f"not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorpusError(path, None, "not a JSON object")
    return content


@contextmanager
def _naming(path: DataPath) -> Iterator[None]:
    """Turn what reading raises into `CorpusError`."""
    try:
        yield
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(path, None, f"cannot be read as token ids: {error}") from error


def numpy_layout(file: OpenedFile, vocabulary_size: int | None) -> TokenLayout:
    """Of an array with a header, which is read. Raises `CorpusError`, as the layouts below do."""
    with _naming(file.path):
        version = np.lib.format.read_magic(file.stored)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file.stored)
    if len(shape) != 1 or dtype.newbyteorder("=").name not in DTYPES:
        raise CorpusError(file.path, None, f"is {dtype} of shape {shape}, not a row of token ids")
    if shape[0] * dtype.itemsize > file.size - file.stored.tell():
        reason = f"cannot be read as token ids: it ends before the last of {shape[0]}"
        raise CorpusError(file.path, None, reason)
    return _filled(file, TokenLayout(dtype, shape[0], sidecar_of(file)))


def raw_layout(file: OpenedFile, vocabulary_size: int | None) -> TokenLayout:
    """Of ids without a header; of a ``.npy`` whose type nobody says the one that holds the vocabulary."""
    sidecar = sidecar_of(file)
    name = sidecar.get("dtype")
    if name is None and file.path.suffix.lower() == ".npy":
        name = "uint32" if vocabulary_size is not None and vocabulary_size > 2**16 else "uint16"
    if name not in DTYPES:
        reason = f"needs {file.path.name}.json beside it with a dtype out of {', '.join(DTYPES)}"
        raise CorpusError(file.path, None, reason)
    dtype = np.dtype(str(name)).newbyteorder("<")
    if file.size % dtype.itemsize:
        raise CorpusError(file.path, None, f"is not a whole number of {name} ids")
    return _filled(file, TokenLayout(dtype, file.size // dtype.itemsize, sidecar))


def megatron_layout(file: OpenedFile, vocabulary_size: int | None) -> TokenLayout:
    """Of a ``.bin`` by its ``.idx``: lengths of sequences, and which of them begin a document."""
    path = file.path.with_suffix(".idx")
    with _naming(path), open_data(path, file.digests) as stream:
        header = stream.read(34)
        code, sequences, borders = (
            int.from_bytes(header[a:b], "little") for a, b in ((17, 18), (18, 26), (26, 34))
        )
        content = stream.read()
    if len(header) < 34 or (dtype := _MEGATRON_DTYPES.get(code)) is None:
        raise CorpusError(path, None, f"is no index of token ids (its type is {code})")
    if len(content) != 12 * sequences + 8 * borders:
        raise CorpusError(
            path, None, f"does not have the {sequences} sequences and {borders} borders it says"
        )
    lengths = np.frombuffer(content, "<i4", sequences)
    starts = np.frombuffer(content, "<i8", borders, 12 * sequences)
    ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    if borders and (starts.min() < 0 or starts.max() > sequences):
        raise CorpusError(path, None, "has a document that begins behind the last sequence")
    return _indexed(file, np.dtype(dtype).newbyteorder("<"), ends[starts])


def datatrove_layout(file: OpenedFile, vocabulary_size: int | None) -> TokenLayout:
    """Of a ``.ds`` by its ``.ds.index``; what the last document ends with tells the size of an id."""
    path = file.path.with_name(f"{file.path.name}.index")
    with _naming(path), open_data(path, file.digests) as stream:
        ends = np.frombuffer(stream.read(), "<u8").astype(np.int64)
    size = file.size / ends[-1] if len(ends) and ends[-1] > 0 else 0
    if size not in (2, 4):
        reason = f"tells of {ends[-1] if len(ends) else 0} ids, and {file.path.name} has {file.size} bytes"
        raise CorpusError(path, None, reason)
    return _indexed(file, np.dtype("<u2" if size == 2 else "<u4"), ends)


def _indexed(file: OpenedFile, dtype: np.dtype[Any], ends: np.ndarray) -> TokenLayout:
    count = file.size // dtype.itemsize
    if file.size % dtype.itemsize or (np.diff(ends) < 0).any() or not len(ends) or ends[-1] != count:
        raise CorpusError(
            file.path, None, f"does not have the ids that its index tells of: {count} of {dtype.name}"
        )
    return _filled(file, TokenLayout(dtype, count, sidecar_of(file), ends))


def _filled(file: OpenedFile, layout: TokenLayout) -> TokenLayout:
    """The layout, if there are ids and they are not of another type."""
    if not layout.count:
        raise CorpusError(file.path, None, "holds no tokens")
    ahead = file.stored.peek()[:HEAD_BYTES]
    ids = np.frombuffer(ahead, layout.dtype, len(ahead) // layout.dtype.itemsize)
    if len(ids) >= SURE_IDS / 4:
        filled = sorted(np.count_nonzero(half > HIGH_HALF) / len(half) for half in (ids[0::2], ids[1::2]))
        if filled[0] < 0.01 and filled[1] > 0.25:
            most = f"below {HIGH_HALF + 1}" if min(ids[0::2].max(), ids[1::2].max()) else "0"
            reason = f"every other id is {most}, so it is not {layout.dtype.name}, but of more bytes an id"
            raise CorpusError(file.path, None, reason)
    return layout


@dataclass(frozen=True)
class TokenReader:
    """What a tokenizer's ids are read with: its end-of-text id, size, and fingerprint where it is known."""

    end_of_text: int
    vocabulary_size: int
    fingerprint: str | None = None

    def documents(self, file: OpenedFile, layout: TokenLayout) -> Iterator[TokenArray]:
        """The documents, without their end-of-text ids; one over `MAX_DOCUMENT_TOKENS` is cut there.

        Raises `CorpusError` for an id outside the vocabulary, ids of another tokenizer, and ids that cannot be
        documents: most of them of a single id, or none that ends.
        """
        own = self._end_of_text(file, layout.sidecar)
        documents = _by_index(self._windows(file, layout), layout.ends, own)
        if layout.ends is None:
            documents = _by_end_of_text(self._windows(file, layout), own)
        short = 0
        for count, ids in enumerate(documents, 1):
            short += len(ids) == 1
            if count == SURE_IDS and short > count / 2:
                reason = f"{short} of its first {count} documents are a single id: its type or end-of-text is wrong"
                raise CorpusError(file.path, None, reason)
            yield ids
        with _naming(file.path):
            file.read_to_end()  # what an array has behind its ids is part of the file

    def _end_of_text(self, file: OpenedFile, sidecar: dict[str, object]) -> int | None:
        if self.fingerprint is not None and sidecar.get("tokenizer") not in (None, self.fingerprint):
            made = sidecar["tokenizer"]
            reason = f"its ids are of the tokenizer {made}, and the domain set's is {self.fingerprint}"
            raise CorpusError(file.path, None, reason)
        own = sidecar.get("end_of_text", self.end_of_text)
        if own is not None and (not isinstance(own, int) or isinstance(own, bool)):
            raise CorpusError(file.path, None, f"its sidecar's end_of_text {own!r} is not a token id")
        return own

    def _windows(self, file: OpenedFile, layout: TokenLayout) -> Iterator[TokenArray]:
        """The ids, `MAX_DOCUMENT_TOKENS` at a time at most."""
        start, left = 0, layout.count
        while left:
            count = min(left, MAX_DOCUMENT_TOKENS)
            with _naming(file.path):
                window = np.frombuffer(file.stored.read(count * layout.dtype.itemsize), layout.dtype, count)
            if (outside := np.flatnonzero((window >= self.vocabulary_size) | (window < 0))).size:
                at = int(outside[0])
                reason = f"id {window[at]} at position {start + at} is outside the tokenizer's {self.vocabulary_size}"
                raise CorpusError(file.path, None, reason)
            if layout.ends is None and not start:
                self._check_ends(file, layout, window)
            yield window
            start, left = start + count, left - count

    def _check_ends(self, file: OpenedFile, layout: TokenLayout, window: TokenArray) -> None:
        own = self._end_of_text(file, layout.sidecar)
        if own is not None and len(window) >= SURE_IDS and not (window == own).any():
            reason = (
                f"none of its first {len(window)} ids is the end-of-text {own}, so no document can be told; say in"
                f' {file.path.name}.json {{"end_of_text": id}}, or null where there is none'
            )
            raise CorpusError(file.path, None, reason)


def _by_index(
    windows: Iterator[TokenArray], ends: np.ndarray | None, own: int | None
) -> Iterator[TokenArray]:
    """Documents of which an index tells where they end; an end-of-text id behind one is no part of it."""
    waiting, start = np.empty(0, np.int64), 0
    borders = iter(() if ends is None else ends.tolist())
    end = next(borders, None)
    for window in windows:
        waiting = np.concatenate((waiting, window)) if len(waiting) else window
        while end is not None and end - start <= len(waiting):
            document, waiting = waiting[: end - start], waiting[end - start :]
            start, end = end, next(borders, None)
            yield from _cut(document[:-1] if len(document) and document[-1] == own else document)
        while len(waiting) > MAX_DOCUMENT_TOKENS:
            yield waiting[:MAX_DOCUMENT_TOKENS]
            waiting, start = waiting[MAX_DOCUMENT_TOKENS:], start + MAX_DOCUMENT_TOKENS


def _by_end_of_text(windows: Iterator[TokenArray], own: int | None) -> Iterator[TokenArray]:
    """Documents that end with an id of their own, or with the file."""
    waiting = np.empty(0, np.int64)
    for window in windows:
        ends = np.flatnonzero(window == own) if own is not None else np.empty(0, np.int64)
        begin = 0
        for end in ends.tolist():
            document = window[begin:end]
            yield from _cut(np.concatenate((waiting, document)) if len(waiting) else document)
            waiting, begin = waiting[:0], end + 1
        rest = window[begin:]
        waiting = np.concatenate((waiting, rest)) if len(waiting) else rest
        while len(waiting) > MAX_DOCUMENT_TOKENS:
            yield waiting[:MAX_DOCUMENT_TOKENS]
            waiting = waiting[MAX_DOCUMENT_TOKENS:]
    yield from _cut(waiting)


def _cut(document: TokenArray) -> Iterator[TokenArray]:
    for begin in range(0, len(document), MAX_DOCUMENT_TOKENS):
        yield document[begin : begin + MAX_DOCUMENT_TOKENS]
