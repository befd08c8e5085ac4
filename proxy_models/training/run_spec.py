"""The order for one training run, as JSON brings it. Free of torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from proxy_models.config import (
    DEFAULT_VOCABULARY_SIZE,
    DEFAULT_WARMUP,
    FLOAT32,
    ModelConfig,
    TrainingConfig,
    size_named,
)
from proxy_models.errors import DataChanged, DataMissing, InvalidSpec
from proxy_models.families.architecture import Architecture, checked_architecture
from proxy_models.families.start import StartFolder, read_start
from proxy_models.stores.current import local_artifact
from proxy_models.stores.object_path import DataPath, data_path
from proxy_models.text.data_roots import open_data
from proxy_models.text.task_file import PLAIN, TaskMeasure, further_series

HELD_OUT_PREFIX = "held-out/"
DEVICE_KINDS = ("cpu", "cuda")
"""What memory and speed are known of; a device of another kind would fail at its first table."""


@dataclass(frozen=True)
class TaskSpec:
    """A task's name, its file with the fields of its records (`TaskFields`), and how choices are measured."""

    name: str
    path: DataPath
    measure: TaskMeasure = PLAIN
    fields: Mapping[str, Any] | None = None

    @classmethod
    def from_dict(cls, task: Mapping[str, Any]) -> "TaskSpec":
        """Read the JSON form; raises `KeyError` or `TypeError` for a malformed one, `InvalidSpec` for its measure."""
        measure = task.get("measure") or {}
        return cls(str(task["name"]), data_path(task["path"]), TaskMeasure(**measure), task.get("fields"))

    @property
    def further(self) -> str:
        """The name its other metric is reported under."""
        return further_series(self.name, self.measure.further)

    def identity(self) -> list[Any]:
        """What the numbers depend on: the file's content, and the measure and fields where they are said."""
        measure = [] if self.measure == PLAIN else [asdict(self.measure)]
        fields = [] if self.fields is None else [dict(self.fields)]
        return [self.name, _digest(self.path), *measure, *fields]


@dataclass(frozen=True)
class Keeping:
    """What a run measures and keeps on the way; none of its numbers depends on it.

    Attributes:
        evaluate_every: steps between evaluations, of the tasks or where there are none of the held-out slices,
            beside those near the end; None: only these.
        checkpoints: how many are kept to go on from while it trains, the newest.
        models: whether the model at each evaluation is kept, ``models/step-<step>``.
        average: of how many evaluations' models, the last ones, the mean is written (``average``) and measured.
    """

    evaluate_every: int | None = None
    checkpoints: int = 1
    models: bool = False
    average: int = 0

    def __post_init__(self) -> None:
        for name, least in (("evaluate_every", 1), ("checkpoints", 1), ("average", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidSpec(f"{name} must be at least {least}, not {value}", f"keeping.{name}")


@dataclass(frozen=True)
class RunSpec:
    """One run: what to train, on which shards in which mixture, and where to keep it.

    ``shards`` maps every domain to its shard directory; ``tokenizer`` is needed with ``tasks`` only.
    ``checkpoint_seconds`` is the least time between checkpoints; neither it nor ``keeping`` moves a number.

    The model is a named ``size``, or an ``architecture`` (`families.architecture`), or that of the folder it starts
    from: ``start`` is a saved model whose shape must fit, and without ``size`` and ``architecture`` the shape is its.
    """

    size: str | None
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
    architecture: Mapping[str, Any] | None = None
    start: Path | None = None
    keeping: Keeping = Keeping()

    def __post_init__(self) -> None:
        if (kind := self.device.partition(":")[0]) not in DEVICE_KINDS:
            raise InvalidSpec(
                f"nothing is trained on {kind!r}; give {' or '.join(DEVICE_KINDS)}, or cuda:1", "device"
            )
        if self.training.warmup_fraction is None:
            warmup = DEFAULT_WARMUP if self.start is None else 0.0
            object.__setattr__(self, "training", replace(self.training, warmup_fraction=warmup))
        if self.size is not None and self.architecture is not None:
            raise InvalidSpec("give a size or an architecture, not both", "architecture")
        if self.size is None and self.architecture is None and self.start is None:
            raise InvalidSpec("size is missing: give one, or an architecture, or a start", "size")

    @cached_property
    def starting(self) -> StartFolder | None:
        """What the run starts from, its shape, vocabulary and names checked; None from scratch. `UnfitStart`."""
        if self.start is None:
            return None
        folder = read_start(self.start)
        folder.check_vocabulary(self.vocabulary_size)
        if (shape := self._given) is not None:
            folder.check_shape(shape)
        return folder

    @cached_property
    def model(self) -> ModelConfig | Architecture:
        """The model's shape; raises `UnknownSize` and what `starting` raises."""
        start = self.starting
        if start is None:
            assert self._given is not None, "one of three is given"
            return self._given
        given = self._given  # over the checkpoint's own vocabulary
        return start.shape if given is None else given.with_vocabulary(start.shape.vocabulary_size)

    @property
    def often_evaluated(self) -> frozenset[int]:
        """The steps that ``keeping.evaluate_every`` adds to those of the training."""
        every, steps = self.keeping.evaluate_every, self.training.steps
        return frozenset(range(every, steps, every)) if every else frozenset()

    @property
    def _given(self) -> ModelConfig | Architecture | None:
        if self.architecture is not None:
            return Architecture(self.architecture, self.vocabulary_size)
        return None if self.size is None else size_named(self.size, self.vocabulary_size)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "RunSpec":
        """Read the JSON form; raises `InvalidSpec` naming a field that is unknown, missing or malformed."""
        content = {"size": None, **content}
        _check_fields(cls, content, "")
        training = _object(content, "training")
        _check_fields(TrainingConfig, training, "training.")
        tasks = content.get("tasks") or []
        try:
            read = tuple(TaskSpec.from_dict(task) for task in tasks)
        except (TypeError, KeyError) as error:
            raise InvalidSpec("every task is an object with name and path", "tasks") from error
        names = [name for task in read for name in (task.name, task.further)]
        for name in names:
            if names.count(name) > 1 or name.startswith(HELD_OUT_PREFIX):
                raise InvalidSpec(
                    f"task name {name!r} is used twice or starts with {HELD_OUT_PREFIX}", "tasks"
                )
        shards = {str(name): Path(path) for name, path in _object(content, "shards").items()}
        architecture, start = content.get("architecture"), content.get("start")
        converted = {
            "architecture": None if architecture is None else checked_architecture(architecture),
            "start": None if start is None else Path(start),
            "training": _build(TrainingConfig, training),
            "keeping": _keeping(content.get("keeping")),
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
        for place in ("directory", "checkpoint_seconds", "tokenizer", "keeping"):
            del content[place]
        if self.training.attend_across_documents:  # as all runs did before this could be said
            del content["training"]["attend_across_documents"]
        if self.training.precision == FLOAT32:  # likewise
            del content["training"]["precision"]
        for absent in [name for name in ("architecture", "start") if content[name] is None]:
            del content[absent]  # runs from before there were any keep their digest
        if (start := self.starting) is not None:
            content["start"] = start.content
        content["shards"] = {name: path.name for name, path in self.shards.items()}  # named by their content
        content["tasks"] = [task.identity() for task in self.tasks]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: DataPath) -> str:
    try:
        with open_data(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
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


def _keeping(content: Mapping[str, Any] | None) -> Keeping:
    _check_fields(Keeping, content or {}, "keeping.")
    return _build(Keeping, content or {})


# Seeds derived from names: the same on any machine, independent of order, never global.


def digest_of(*parts: str | int) -> bytes:
    """SHA-256 of the parts, each kept apart from its neighbours."""
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()


def seed_of(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on the parts only."""
    return int.from_bytes(digest_of(*parts)[:8], "big") >> 1


def local_order(order: Mapping[str, Any]) -> dict[str, Any]:
    """An order for a run with every artifact it names fetched to this machine (`stores.current.using_store`).

    Raises `DataMissing`, `StoreError`, and `DataChanged` where the model to start from is another than was asked for.
    """
    local = {name: value for name, value in order.items() if name != "start_content"}
    local["shards"] = {name: local_artifact(place) for name, place in order["shards"].items()}
    if order["tokenizer"] is not None:
        local["tokenizer"] = local_artifact(order["tokenizer"])
    if "start_content" in order:
        local["start"] = local_artifact(order["start"])
        if read_start(Path(local["start"])).content != order["start_content"]:
            raise DataChanged(order["start"])
    return local
