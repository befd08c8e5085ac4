"""A trained model as a Hugging Face folder: config, weights and tokenizer. Free of torch.

Our decoder is Qwen3's, number by number: pre-norm RMSNorm of epsilon 1e-6, rotary positions that turn the halves of
a head against each other, RMSNorm of each head's queries and keys before the rotation, no biases, SwiGLU, and a head
that is tied to the embedding or not. Ours keeps queries, keys and values in one matrix, and gate and up in another,
both row by row one after the other, so the folder's weights are ranges of our file's bytes: nothing is computed.

The files of the folder are known by name and size, and read piece by piece when they are written or sent.
"""

import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from proxy_models.errors import CorpusError, DataMissing, InvalidSpec
from proxy_models.storage import unnamed_directory
from proxy_models.text.data_roots import is_data_file, open_data
from proxy_models.text.token_files import (
    DEFINITION,
    KNOWN_END_OF_TEXT,
    LARGEST_TOKENIZER,
    SETTINGS,
    TOKENIZER_FILES,
)

PIECE = 2**20
"""Bytes of a file that are in memory at once."""
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class ExportedFile:
    """A file to be; ``pieces`` gives its ``size`` bytes, anew at each call."""

    name: str
    size: int
    pieces: Callable[[], Iterator[bytes]]

    @classmethod
    def of(cls, name: str, content: bytes) -> "ExportedFile":
        """A small file that is in memory already."""
        return cls(name, len(content), lambda: iter((content,)))

    @classmethod
    def copy(cls, path: Path, name: str | None = None) -> "ExportedFile":
        """A file as it is on the disk. Raises `DataMissing`."""
        with _opened(path) as stream:
            size = os.fstat(stream.fileno()).st_size
        return cls(name or path.name, size, lambda: byte_range(path, 0, size))


def _opened(path: Path) -> BufferedReader:
    try:
        return open_data(path)
    except (OSError, CorpusError) as error:
        raise DataMissing(path, f"cannot be read: {error}") from error


def byte_range(path: Path, begin: int, end: int) -> Iterator[bytes]:
    """The bytes ``begin`` to ``end`` of a file, `PIECE` at a time. Raises `DataMissing` where it ends before."""
    with _opened(path) as stream:
        stream.seek(begin)
        while begin < end:
            piece = stream.read(min(PIECE, end - begin))
            if not piece:
                raise DataMissing(path, f"ends at byte {begin}; {end} were expected")
            begin += len(piece)
            yield piece


def write_folder(files: Sequence[ExportedFile], directory: Path) -> None:
    """Write a new directory of the files, whole or not at all.

    Raises `InvalidSpec` naming ``to`` where there is something of that name already, `StorageFailed`, `DataMissing`.
    """
    if directory.exists() or directory.is_symlink():
        raise InvalidSpec(f"{directory} exists already; name a directory that does not", "to")
    with unnamed_directory(directory) as temporary:
        for file in files:
            with (temporary / file.name).open("xb") as stream:
                stream.writelines(file.pieces())
        temporary.rename(directory)  # fails where somebody else made it meanwhile and put something in


def _header(folder: str, file: ExportedFile) -> bytes:
    entry = tarfile.TarInfo(f"{folder}/{file.name}")
    entry.size, entry.mode = file.size, 0o644
    return entry.tobuf(tarfile.PAX_FORMAT)


def tar_size(files: Sequence[ExportedFile], folder: str) -> int:
    """Bytes of the archive that `tar_pieces` gives."""
    return sum(len(_header(folder, file)) + -(-file.size // _BLOCK) * _BLOCK for file in files) + 2 * _BLOCK


def tar_pieces(files: Sequence[ExportedFile], folder: str) -> Iterator[bytes]:
    """A tar archive of the files below ``folder``, piece by piece; the same files give the same bytes."""
    for file in files:
        yield _header(folder, file)
        yield from file.pieces()
        yield bytes(-file.size % _BLOCK)
    yield bytes(2 * _BLOCK)


@dataclass(frozen=True)
class EndOfText:
    """The token between documents."""

    text: str
    id: int


@dataclass(frozen=True)
class ExportedTokenizer:
    """Its files, and its end-of-text where the definition names one."""

    files: tuple[ExportedFile, ...]
    end_of_text: EndOfText | None


def tokenizer_files(spec: str, context_length: int) -> ExportedTokenizer:
    """The files of a ``tokenizer.json``, a Hugging Face folder, or a hub tokenizer that was used on this machine.

    Raises `DataMissing` where there are none.
    """
    path = Path(spec)
    if path.is_file():
        end_of_text = _end_of_text(path, KNOWN_END_OF_TEXT)
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context_length,
            "clean_up_tokenization_spaces": False,
        }
        if end_of_text is not None:
            settings |= {"bos_token": end_of_text.text, "eos_token": end_of_text.text}
        written = ExportedFile.of(SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())
        return ExportedTokenizer((ExportedFile.copy(path, DEFINITION), written), end_of_text)
    folder = path if path.is_dir() else _from_cache(spec)
    files = tuple(ExportedFile.copy(folder / name) for name in TOKENIZER_FILES if _is_there(folder / name))
    if not files:
        raise DataMissing(folder, "holds no tokenizer")
    return ExportedTokenizer(files, _end_of_text_in(folder))


def _from_cache(name: str) -> Path:
    """The folder a hub tokenizer was kept in when it was first used; nothing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(TOKENIZER_FILES), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataMissing(name, "is neither a tokenizer here nor one that this machine has used") from error


def _is_there(path: Path) -> bool:
    try:
        return is_data_file(path)
    except (OSError, CorpusError) as error:
        raise DataMissing(path, f"cannot be read: {error}") from error


def _end_of_text_in(folder: Path) -> EndOfText | None:
    if not (_is_there(folder / DEFINITION) and _is_there(folder / SETTINGS)):
        return None
    token = _read(folder / SETTINGS).get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    return _end_of_text(folder / DEFINITION, (text,)) if isinstance(text, str) else None


def _end_of_text(definition: Path, names: tuple[str, ...]) -> EndOfText | None:
    """The first of the names that the definition has, among its added tokens or in its vocabulary."""
    content = _read(definition)
    known = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    vocabulary = (content.get("model") or {}).get("vocab")
    if isinstance(vocabulary, dict):
        known = {**vocabulary, **known}
    return next((EndOfText(name, known[name]) for name in names if name in known), None)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with _opened(path) as stream:
            return json.loads(stream.read(LARGEST_TOKENIZER))
    except (OSError, ValueError) as error:
        raise DataMissing(path, f"cannot be read: {error}") from error


WEIGHTS, CONFIG = "model.safetensors", "config.json"
_LARGEST_HEADER = 100_000_000
"""The limit of the safetensors format."""
_LAYER = {
    "attention_norm": ("input_layernorm",),
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "query_norm": ("self_attn.q_norm",),
    "key_norm": ("self_attn.k_norm",),
    "attention_out": ("self_attn.o_proj",),
    "ffn_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "ffn_out": ("mlp.down_proj",),
}
_WHOLE = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}


def exported_model(model: Path, tokenizer: str, context_length: int) -> tuple[ExportedFile, ...]:
    """The files of the folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.

    Args:
        model: what `run_record.save_model` wrote, or a Hugging Face folder, which is taken as it is.
        tokenizer: as `tokenizer.load_tokenizer` takes it.
        context_length: tokens the model was trained on at once.

    Raises:
        DataMissing: the model's or the tokenizer's files are gone or damaged.
    """
    config = _read(model / CONFIG)
    described = tokenizer_files(tokenizer, context_length)
    if "model_type" in config:
        own = [ExportedFile.copy(path) for path in sorted(model.iterdir()) if path.is_file()]
        named = {file.name for file in own}
        return (*own, *(file for file in described.files if file.name not in named))
    weights = _Weights.read(model / WEIGHTS)
    written = _config(config, weights.dtype, context_length, described.end_of_text)
    return (
        _json(CONFIG, written),
        _json("generation_config.json", _tokens(described.end_of_text)),
        weights.exported(),
        *described.files,
    )


def _json(name: str, content: Mapping[str, Any]) -> ExportedFile:
    return ExportedFile.of(name, (json.dumps(content, indent=2) + "\n").encode())


def _tokens(end_of_text: EndOfText | None) -> dict[str, Any]:
    """In training end-of-text stands before and behind every document."""
    if end_of_text is None:
        return {}
    return {"bos_token_id": end_of_text.id, "eos_token_id": end_of_text.id}


def _config(
    config: Mapping[str, Any], dtype: str, context_length: int, end_of_text: EndOfText | None
) -> dict[str, Any]:
    head_size = config.get("head_width") or config["width"] // config["heads"]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": config["vocabulary_size"],
        "hidden_size": config["width"],
        "intermediate_size": config["ffn"],
        "num_hidden_layers": config["layers"],
        "num_attention_heads": config["heads"],
        "num_key_value_heads": config["heads"],
        "head_dim": head_size,
        "hidden_act": "silu",
        "max_position_embeddings": context_length,
        "rms_norm_eps": 1e-6,
        "rope_theta": config["rope_base"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_base"]},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "tie_word_embeddings": config["tied_embeddings"],
        "torch_dtype": _DTYPES[dtype],
        "use_cache": True,
        **_tokens(end_of_text),
    }


@dataclass(frozen=True)
class _Tensor:
    """A range of the bytes of our file, under the name it has over there."""

    name: str
    shape: Sequence[int]
    begin: int
    end: int


@dataclass(frozen=True)
class _Weights:
    path: Path
    dtype: str
    tensors: tuple[_Tensor, ...]

    @classmethod
    def read(cls, path: Path) -> "_Weights":
        """The header of a safetensors file of ours. Raises `DataMissing`."""
        try:
            with _opened(path) as stream:
                size = os.fstat(stream.fileno()).st_size
                length = int.from_bytes(stream.read(8), "little")
                if length > _LARGEST_HEADER:
                    raise DataMissing(path, "is no safetensors file")
                header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            tensors = tuple(
                part for name, entry in header.items() for part in _parts(name, entry, 8 + length)
            )
            (dtype,) = {entry["dtype"] for entry in header.values()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataMissing(path, f"is not a trained model: {error}") from error
        if not tensors or size < max(tensor.end for tensor in tensors):
            raise DataMissing(path, "is shorter than its header says")
        return cls(path, dtype, tensors)

    def exported(self) -> ExportedFile:
        """The same bytes in Hugging Face's order of tensors."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in self.tensors:
            size = tensor.end - tensor.begin
            header[tensor.name] = {
                "dtype": self.dtype,
                "shape": list(tensor.shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)  # aligned, as the format asks for
        start = len(encoded).to_bytes(8, "little") + encoded

        def pieces() -> Iterator[bytes]:
            yield start
            for tensor in self.tensors:
                yield from byte_range(self.path, tensor.begin, tensor.end)

        return ExportedFile(WEIGHTS, len(start) + offset, pieces)


def _parts(name: str, entry: Mapping[str, Any], data: int) -> Iterator[_Tensor]:
    """A tensor of ours as those it is over there: as many equal ranges of its rows."""
    if name in _WHOLE:
        names: tuple[str, ...] = (_WHOLE[name],)
    else:
        _, layer, kind = name.split(".")
        names = tuple(f"model.layers.{layer}.{one}" for one in _LAYER[kind])
    begin, end = entry["data_offsets"]
    rows, *rest = entry["shape"]
    if rows % len(names):
        raise ValueError(f"{name} does not divide into {len(names)}")
    size = (end - begin) // len(names)
    for index, one in enumerate(names):
        first = data + begin + index * size
        yield _Tensor(f"{one}.weight", (rows // len(names), *rest), first, first + size)
