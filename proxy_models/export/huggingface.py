"""A trained model as a Hugging Face folder: config, weights and tokenizer. Free of torch.

Our decoder is Qwen3's, number by number: pre-norm RMSNorm of epsilon 1e-6, rotary positions that turn the halves of
a head against each other, RMSNorm of each head's queries and keys before the rotation, no biases, SwiGLU, and a head
that is tied to the embedding or not. Ours keeps queries, keys and values in one matrix, and gate and up in another,
both row by row one after the other, so the folder's weights are ranges of our file's bytes: nothing is computed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_models.errors import DataMissing
from proxy_models.export.exported_file import ExportedFile, byte_range
from proxy_models.export.exported_tokenizer import EndOfText, tokenizer_files

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
        model: what `checkpoint.save_model` wrote, or a Hugging Face folder, which is taken as it is.
        tokenizer: as `tokenizer.load_tokenizer` takes it.
        context_length: tokens the model was trained on at once.

    Raises:
        DataMissing: the model's or the tokenizer's files are gone or damaged.
    """
    config = _read_config(model / CONFIG)
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


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataMissing(path, f"is not a model's configuration: {error}") from error


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
            with path.open("rb") as stream:
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
        if not tensors or path.stat().st_size < max(tensor.end for tensor in tensors):
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
