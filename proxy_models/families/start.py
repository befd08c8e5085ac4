"""A folder that a run starts from: a model of one of our runs, or one of Hugging Face's. Free of torch.

Only ``config.json``, safetensors and what our runs note of their training are read: nothing that could run code. What
needs the tensors themselves is in `run_inputs.starting_state`.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from proxy_models.config import ModelConfig
from proxy_models.errors import CorpusError, DataMissing, InvalidSpec, UnfitStart
from proxy_models.families.architecture import Architecture, checked_architecture
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.file_system import patiently
from proxy_models.text.data_roots import entries_of, is_data_file, name_of, open_data

FILE = "training.json"


@dataclass(frozen=True)
class SavedTraining:
    """Where training ended: its last step's learning rate, all tokens ever trained on, and whose ids they were.

    ``tokenizer`` is the fingerprint that the token shards carry; None where it is not known.
    """

    learning_rate: float
    tokens: int
    tokenizer: str | None = None


def _saved_training(folder: Path, content: bytes) -> SavedTraining:
    try:
        said = json.loads(content)
        return SavedTraining(float(said["learning_rate"]), int(said["tokens"]), said.get("tokenizer"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnfitStart(folder, f"its {FILE} cannot be read: {error}") from error


CONFIG, TENSORS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST_JSON = 2**24
"""Bytes of a description, which is read whole; those of models of thousands of tensors take a tenth."""
_SHAPE = ("layers", "width", "heads", "ffn", "tied_embeddings", "rope_base", "head_width")


@dataclass(frozen=True)
class StartFolder:
    """A checkpoint as its files say: the shape of its model, its tensors' shapes by name, and its files."""

    folder: Path
    shape: ModelConfig | Architecture
    tensors: Mapping[str, tuple[int, ...]]
    files: tuple[Path, ...]
    saved: SavedTraining | None

    @cached_property
    def content(self) -> str:
        """SHA-256 of everything a run takes from the folder. Reads all of it."""
        return _content([(path.name, _digest(path, *_identity(path))) for path in self.files])

    def check_shape(self, asked: ModelConfig | Architecture) -> None:
        """Raise `UnfitStart` naming what differs where another shape than the folder's is asked for."""
        mine = self.shape
        if isinstance(mine, ModelConfig) and isinstance(asked, ModelConfig):
            pairs = [(name, getattr(mine, name), getattr(asked, name)) for name in _SHAPE]
            field = "size"
        elif isinstance(mine, Architecture) and isinstance(asked, Architecture):
            had = mine.settings
            pairs = [(name, had[name], value) for name, value in asked.settings.items() if name in had]
            field = "architecture"
        else:
            kind = "our own decoder" if isinstance(mine, ModelConfig) else f"transformers' {mine.name}"
            field = "architecture" if isinstance(asked, Architecture) else "size"
            raise UnfitStart(self.folder, f"it is {kind}, asked for is {asked.name}", field)
        if differing := [pair for pair in pairs if pair[1] != pair[2]]:
            said = ", ".join(f"{name} is {was!r} there and {is_!r} here" for name, was, is_ in differing)
            named = field if field == "size" else f"{field}.{differing[0][0]}"
            raise UnfitStart(self.folder, said, named)

    def check_vocabulary(self, vocabulary_size: int) -> None:
        """Raise `UnfitStart` unless its vocabulary is the tokenizer's, give or take what tables are padded by.

        Published tables are rounded up by less than 128 rows or 1%.
        """
        mine = self.shape.vocabulary_size
        if mine < vocabulary_size:
            raise UnfitStart(
                self.folder, f"it knows {mine} tokens, the domain set's tokenizer has {vocabulary_size}"
            )
        if mine - vocabulary_size >= max(128, vocabulary_size // 100):
            raise UnfitStart(
                self.folder,
                f"it knows {mine} tokens, the domain set's tokenizer only {vocabulary_size}: it is another's",
            )

    def check_tokenizer(self, fingerprint: str) -> None:
        """Raise `UnfitStart` where the model is known to have learned another tokenizer's ids."""
        known = self.saved.tokenizer if self.saved else None
        if known is not None and known != fingerprint:
            raise UnfitStart(self.folder, "it was trained on the ids of another tokenizer than the shards'")


def read_start(folder: Path) -> StartFolder:
    """What the folder holds. Raises `UnfitStart` where it is no safe, complete checkpoint of a causal model."""
    shape = _shape(folder, _object(folder, CONFIG, _read(folder, CONFIG)))
    if _is_there(folder, "adapter_config.json"):
        raise UnfitStart(folder, "it holds an adapter; merge it into its model first")
    weights = _weight_files(folder)
    tensors: dict[str, tuple[int, ...]] = {}
    for path in weights:
        tensors |= _header(folder, path.name)
    if isinstance(shape, ModelConfig):
        _check_tensors(folder, tensors, decoder_shapes(shape))
    saved = _saved_training(folder, _read(folder, FILE)) if _is_there(folder, FILE) else None
    names = (CONFIG,) if saved is None else (CONFIG, FILE)
    files = (*(folder / name for name in names), *weights)
    return StartFolder(folder, shape, tensors, files, saved)


def read_published_start(store: ArtifactStore, folder: Path) -> tuple[StartFolder, str]:
    """What a published model says of itself, and its content: no tensors are fetched, and nothing is held.

    Its tensors are checked by the run that starts from it. Raises `UnfitStart`, and `StoreError` where the store does
    not have it or does not answer.
    """
    manifest = patiently(lambda: store.published(folder))
    if manifest is None:
        raise DataMissing(store.address_of(folder), "is not in the artifact store")
    small = {name: store.read_file(folder, name) or b"" for name in (CONFIG, FILE) if name in manifest.files}
    weights = sorted(name for name in manifest.files if name.endswith(".safetensors"))
    shape = _shape(folder, _object(folder, CONFIG, small.get(CONFIG)))
    saved = _saved_training(folder, small[FILE]) if FILE in small else None
    files = [*small, *weights]
    content = _content([(name, manifest.files[name].sha256) for name in files])
    return StartFolder(folder, shape, {}, tuple(folder / name for name in files), saved), content


def _content(digests: Sequence[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[BufferedReader]:
    try:
        with open_data(folder / name) as stream:
            yield stream
    except FileNotFoundError as error:
        raise UnfitStart(folder, f"it has no {name}") from error
    except (OSError, CorpusError) as error:
        raise UnfitStart(folder, f"its {name} cannot be read: {error}") from error


def _read(folder: Path, name: str) -> bytes:
    with _opened(folder, name) as stream:
        content = stream.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise UnfitStart(folder, f"its {name} is longer than {LARGEST_JSON} bytes")
    return content


def _is_there(folder: Path, name: str) -> bool:
    try:
        return is_data_file(folder / name)
    except (OSError, CorpusError) as error:
        raise UnfitStart(folder, f"its {name} cannot be read: {error}") from error


def _object(folder: Path, name: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        raise UnfitStart(folder, f"it has no {name}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnfitStart(folder, f"its {name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UnfitStart(folder, f"its {name} is not an object")
    return found


def _shape(folder: Path, config: dict[str, Any]) -> ModelConfig | Architecture:
    known = {field.name for field in fields(ModelConfig)}
    try:
        if "model_type" not in config and {"layers", "width"} <= set(config):
            return ModelConfig(**{name: value for name, value in config.items() if name in known})
        settings = checked_architecture(config, known_only=False)
        return Architecture(settings, int(config["vocab_size"]))
    except (InvalidSpec, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, InvalidSpec) else f"its {CONFIG} misses or garbles {error}"
        raise UnfitStart(folder, reason) from error


def _weight_files(folder: Path) -> list[Path]:
    if _is_there(folder, TENSORS):
        return [folder / TENSORS]
    if _is_there(folder, INDEX):
        index = _object(folder, INDEX, _read(folder, INDEX))
        names = sorted({str(name) for name in dict(index.get("weight_map") or {}).values()})
        for name in names:
            if Path(name).name != name or not _is_there(folder, name):
                raise UnfitStart(folder, f"its {INDEX} names {name!r}, which is not there")
        if names:
            return [folder / name for name in names]
    with entries_of(folder) as entries:
        unsafe = sorted(
            entry.name for entry in entries if entry.name.endswith((".bin", ".pt", ".pth", ".ckpt"))
        )
    if unsafe:
        raise UnfitStart(
            folder, f"{unsafe[0]} is a pickle, which can run code; convert the model to safetensors"
        )
    raise UnfitStart(folder, f"it has no {TENSORS}")


def _header(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    try:
        with _opened(folder, name) as stream:
            if int.from_bytes(stream.read(8), "little") > LARGEST_JSON:
                raise UnfitStart(
                    folder,
                    f"{name} is not readable as safetensors: its header says {LARGEST_JSON} bytes and more",
                )
            with safe_open(name_of(stream), framework="numpy") as tensors:
                return {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UnfitStart(folder, f"{name} is not readable as safetensors: {error}") from error


def decoder_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The parameters of `model.Decoder` by name."""
    width, ffn, attention = config.width, config.ffn, config.attention_width
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (config.vocabulary_size, width),
        "final_norm": (width,),
    }
    if not config.tied_embeddings:
        shapes["head"] = (config.vocabulary_size, width)
    layer = {
        "attention_norm": (width,),
        "query_norm": (config.head_size,),
        "key_norm": (config.head_size,),
        "query_key_value": (3 * attention, width),
        "attention_out": (width, attention),
        "ffn_norm": (width,),
        "gate_up": (2 * ffn, width),
        "ffn_out": (width, ffn),
    }
    return shapes | {
        f"blocks.{index}.{name}": shape for index in range(config.layers) for name, shape in layer.items()
    }


def _check_tensors(
    folder: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    check_names(folder, expected.keys() - found.keys(), found.keys() - expected.keys())
    for name, shape in expected.items():
        if found[name] != shape:
            raise UnfitStart(folder, f"its tensor {name} is {found[name]}, {CONFIG} makes it {shape}")


def check_names(folder: Path, missing: set[str], unexpected: set[str]) -> None:
    """Raise `UnfitStart` naming tensors that are missing or too many."""
    for names, said in ((missing, "misses"), (unexpected, "has, beyond its model,")):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise UnfitStart(folder, f"it {said} {len(names)} tensors: {listed}")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file as it was at that size and time: the runs of a wave read it once."""
    with open_data(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
