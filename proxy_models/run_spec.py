"""The order for one training run, as JSON brings it. Free of torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from proxy_models.config import DEFAULT_VOCABULARY_SIZE, ModelConfig, TrainingConfig, size_named
from proxy_models.errors import DataMissing, InvalidSpec

HELD_OUT_PREFIX = "held-out/"


@dataclass(frozen=True)
class TaskSpec:
    """A task's name and its JSONL file."""

    name: str
    path: Path


@dataclass(frozen=True)
class RunSpec:
    """One run: what to train, on which shards in which mixture, and where to keep it.

    ``shards`` maps every domain to its shard directory; ``tokenizer`` is needed with ``tasks`` only.
    ``checkpoint_seconds`` is the least time between checkpoints; it moves no number.
    """

    size: str
    mixture: Mapping[str, float]
    shards: Mapping[str, Path]
    directory: Path
    training: TrainingConfig
    vocabulary_size: int = DEFAULT_VOCABULARY_SIZE
    tokenizer: str | None = None
    tasks: tuple[TaskSpec, ...] = ()
    max_epochs: float | None = None
    device: str = "cpu"
    threads: int = 1
    checkpoint_seconds: float = 10.0

    @property
    def model(self) -> ModelConfig:
        """The model's shape; raises `UnknownSize`."""
        return size_named(self.size, self.vocabulary_size)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RunSpec":
        """Read the JSON form; raises `InvalidSpec` naming a field that is unknown, missing or malformed."""
        _check_fields(cls, content, "")
        training = _object(content, "training")
        _check_fields(TrainingConfig, training, "training.")
        tasks = content.get("tasks") or []
        try:
            read = tuple(TaskSpec(str(task["name"]), Path(task["path"])) for task in tasks)
        except (TypeError, KeyError) as error:
            raise InvalidSpec("every task is an object with name and path", "tasks") from error
        names = [task.name for task in read]
        for name in names:
            if names.count(name) > 1 or name.startswith(HELD_OUT_PREFIX):
                raise InvalidSpec(
                    f"task name {name!r} is used twice or starts with {HELD_OUT_PREFIX}", "tasks"
                )
        shards = {str(name): Path(path) for name, path in _object(content, "shards").items()}
        converted = {
            "training": _build(TrainingConfig, training),
            "tasks": read,
            "shards": shards,
            "directory": Path(content["directory"]),
            "mixture": {str(name): float(weight) for name, weight in _object(content, "mixture").items()},
        }
        spec = _build(cls, {**content, **converted})
        if spec.tasks and spec.tokenizer is None:
            raise InvalidSpec("tasks need a tokenizer", "tokenizer")
        return spec

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, read back by `from_dict`."""
        return json.loads(json.dumps(asdict(self), default=str))

    def fingerprint(self) -> str:
        """A digest of everything the numbers depend on; places and paths play no part, contents do."""
        content = self.to_dict()
        for place in ("directory", "checkpoint_seconds", "tokenizer"):
            del content[place]
        content["shards"] = {name: path.name for name, path in self.shards.items()}  # named by their content
        content["tasks"] = [[task.name, _digest(task.path)] for task in self.tasks]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataMissing(path, f"task file cannot be read: {error.strerror or error}") from error


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content[name]
    if not isinstance(value, Mapping):
        raise InvalidSpec(f"{name} must be an object", name)
    return dict(value)


def _check_fields(kind: type, content: Mapping[str, Any], prefix: str) -> None:
    known = {item.name: item for item in fields(kind)}
    for name in content:
        if name not in known:
            raise InvalidSpec(f"unknown setting {prefix}{name}", f"{prefix}{name}")
    for name, item in known.items():
        if name not in content and item.default is MISSING and item.default_factory is MISSING:
            raise InvalidSpec(f"{prefix}{name} is missing", f"{prefix}{name}")


T = TypeVar("T")


def _build(kind: type[T], content: Mapping[str, Any]) -> T:
    try:
        return kind(**content)
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"malformed setting: {error}") from error
