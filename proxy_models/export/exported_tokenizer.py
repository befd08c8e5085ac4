"""The tokenizer of an export: what is there is copied, what ``AutoTokenizer`` needs beside it is written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_models.errors import DataMissing
from proxy_models.export.exported_file import ExportedFile
from proxy_models.text.end_of_text import KNOWN_END_OF_TEXT

DEFINITION, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_FILES = (
    DEFINITION,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)


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
    files = tuple(ExportedFile.copy(folder / name) for name in _FILES if (folder / name).is_file())
    if not files:
        raise DataMissing(folder, "holds no tokenizer")
    return ExportedTokenizer(files, _end_of_text_in(folder))


def _from_cache(name: str) -> Path:
    """The folder a hub tokenizer was kept in when it was first used; nothing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise DataMissing(name, "is neither a tokenizer here nor one that this machine has used") from error


def _end_of_text_in(folder: Path) -> EndOfText | None:
    if not (folder / DEFINITION).is_file() or not (folder / SETTINGS).is_file():
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
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataMissing(path, f"cannot be read: {error}") from error
