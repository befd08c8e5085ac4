"""Real text from the standard library, prepared once per session."""

import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from proxy_models.config import ModelConfig
from proxy_models.text.preparation import PreparationSpec, PreparedDomain, prepare_domain, training_sample
from proxy_models.text.tokenizer import TextTokenizer, train_byte_level_bpe
from proxy_models.training.run_record import MODEL_CONFIG, MODEL_TENSORS

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
SOURCES = {
    "code:email": ("email/*.py", "mailbox.py", "smtplib.py"),
    "code:numbers": ("statistics.py", "fractions.py", "_pydecimal.py", "random.py"),
    "code:web": ("http/*.py", "urllib/*.py", "html/*.py"),
}


@dataclass(frozen=True)
class Pool:
    """A small real domain set: a tokenizer of 512 ids and three prepared domains."""

    root: Path
    tokenizer_path: Path
    tokenizer: TextTokenizer
    files: dict[str, Path]
    domains: dict[str, PreparedDomain]


def write_documents(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def pieces(patterns: tuple[str, ...]) -> list[str]:
    files = sorted(file for pattern in patterns for file in STANDARD_LIBRARY.glob(pattern))
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [text[start : start + 1500] for text in texts for start in range(0, len(text), 1500)]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    root = tmp_path_factory.mktemp("pool")
    files = {
        name: write_documents(root / f"{index}.jsonl", pieces(patterns))
        for index, (name, patterns) in enumerate(SOURCES.items())
    }
    path = root / "tokenizer.json"
    tokenizer = train_byte_level_bpe(training_sample(tuple(files.values()), 0.05, 150_000), 512, path)
    domains = {
        name: prepare_domain(PreparationSpec(name, (file,), tokenizer, root / "shards", 0.05, 8192, 512))
        for name, file in files.items()
    }
    return Pool(root, path, tokenizer, files, domains)


@pytest.fixture
def spec_json(pool: Pool, tmp_path: Path) -> dict:
    task = tmp_path / "task.jsonl"
    examples = [
        {"context": "def first(self):\n    return", "continuation": " self.first\n"},
        {"context": "", "continuation": "import os\n" * 60},
        {"context": "import collections\n" * 40, "continuation": "import sys\n"},
    ]
    task.write_text("".join(json.dumps(example) + "\n" for example in examples), encoding="utf-8")
    return {
        "size": "nano-0.1M",
        "vocabulary_size": 512,
        "mixture": {"code:email": 0.5, "code:numbers": 0.3, "code:web": 0.2},
        "shards": {name: str(domain.directory) for name, domain in pool.domains.items()},
        "tokenizer": str(pool.tokenizer_path),
        "tasks": [{"name": "code", "path": str(task)}],
        "directory": str(tmp_path / "run"),
        "max_epochs": None,
        "device": "cpu",
        "training": {"tokens": 40_000, "sequence_length": 64, "batch_rows": 4, "seed": 3, "evaluations": 3},
    }


def load_model(directory: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """What a run wrote as its model."""
    config = json.loads((directory / MODEL_CONFIG).read_text(encoding="utf-8"))
    return ModelConfig(**config), load_file(directory / MODEL_TENSORS)
