"""What a run keeps in its directory: checkpoints, then the model and the result, however it is trained.

Checkpoints are safetensors and JSON, whole or absent; the newest is kept.
"""

import json
import resource
import shutil
import statistics
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from proxy_models.average import average_models
from proxy_models.config import ModelConfig
from proxy_models.errors import DataMissing, Diverged, InvalidSpec, StorageFailed
from proxy_models.families.architecture import Architecture
from proxy_models.families.counting import counted
from proxy_models.families.start import FILE as TRAINING
from proxy_models.families.start import SavedTraining
from proxy_models.storage import new_directory, storage_errors, write_json
from proxy_models.stores.current import PublishedRun
from proxy_models.training.processes import ALONE, Processes
from proxy_models.training.run_inputs import peak_rate
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import learning_rate_at

TENSORS, STATE = "state.safetensors", "state.json"
MODEL_TENSORS, MODEL_CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of a trainer after ``step`` steps, and the JSON kept with them."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, object]


def _name(step: int) -> str:
    return f"step-{step:010d}"


def add_checkpoint(directory: Path, checkpoint: Checkpoint, processes: Processes = ALONE) -> Path:
    """Write a checkpoint beside the older ones; answers its folder. Raises `StorageFailed`.

    Several processes each write their part of the tensors, all at once.
    """
    path = directory / _name(checkpoint.step)
    with new_directory(path) if processes.is_first else nullcontext() as begun:
        temporary = processes.same(begun)
        assert temporary is not None
        if processes.count > 1:
            from proxy_models.training.saved_shards import save_shards

            save_shards(temporary, checkpoint.tensors)
        else:
            _save(checkpoint.tensors, temporary / TENSORS)
        if processes.is_first:
            write_json(temporary / STATE, {"step": checkpoint.step, "state": checkpoint.state})
    processes.wait()
    return path


def checkpoint_steps(directory: Path) -> set[int]:
    """The steps there are checkpoints of."""
    return {int(path.name.removeprefix("step-")) for path in directory.glob("step-*")}


def read_checkpoint(directory: Path, step: int, processes: Processes = ALONE) -> Checkpoint:
    """The checkpoint of that step, written by one process or by several.

    Its tensors are whole for one process; several are given a `SavedShards`, from which each reads its part.
    Raises `DataMissing` where it cannot be read, and `StorageFailed` (retryable) where it went away: another attempt
    at the run, not yet aware that it was taken for dead, has a newer one or has finished.
    """
    path = directory / _name(step)
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if (path / TENSORS).exists():
            tensors = load_file(path / TENSORS)
        else:
            from proxy_models.training.saved_shards import SavedShards

            shards = SavedShards(path)
            tensors = shards if processes.count > 1 else shards.whole()
        return Checkpoint(state["step"], tensors, state["state"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if not path.exists():
            raise StorageFailed(path, "was removed while it was read") from error
        raise DataMissing(path, f"is not a readable checkpoint ({error}); remove it to start over") from error


def save_model(
    directory: Path,
    shape: ModelConfig | Architecture,
    parameters: Mapping[str, Tensor],
    training: SavedTraining | None = None,
) -> None:
    """Write the trained model and how it was ``training``: ``model.safetensors``, ``config.json``, ``training.json``.

    A model of ``transformers`` in the library's own layout. Raises `StorageFailed`.
    """
    with new_directory(directory) as temporary:
        if isinstance(shape, ModelConfig):
            _save(parameters, temporary / MODEL_TENSORS)
            write_json(temporary / MODEL_CONFIG, asdict(shape))
        else:
            from proxy_models.families import transformers_model

            transformers_model.save(temporary, shape, parameters)
        if training is not None:
            write_json(temporary / TRAINING, asdict(training))


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    copies = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with storage_errors(path):
        try:
            save_file(copies, path)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error


@dataclass(frozen=True)
class RunProgress:
    """Tokens trained of the total, the rate of all processes, and the last step's loss (nats per token).

    ``mfu`` is what training does of what large products reach on the devices (`torch_device.product_flops`).
    """

    done: int
    total: int
    tokens_per_second: float
    loss: float
    mfu: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "unit": "tokens"}


@dataclass(frozen=True)
class Metric:
    """What one task measured after ``step`` steps, ``tokens`` tokens: BPB, or an accuracy as a share of 1."""

    step: int
    tokens: int
    task: str
    value: float


@dataclass(frozen=True)
class RunResult:
    """What a run measured.

    ``final`` is each task's metric after the last step, ``further`` the other metric of those with choices,
    ``noise`` the standard deviation of either over its evaluations near the end where it has two or more,
    ``realised_tokens`` what was trained on per domain, ``seconds`` the time spent in all attempts,
    ``average`` what the mean of the last evaluations' models measured, where that was asked for.
    """

    metrics: tuple[Metric, ...]
    final: dict[str, float]
    noise: dict[str, float]
    realised_tokens: dict[str, int]
    tokens: int
    seconds: float
    tokens_per_second: float
    parameters: int
    non_embedding_parameters: int
    peak_memory_bytes: int
    model_path: Path
    further: dict[str, float] = field(default_factory=dict)
    average: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "metrics": [asdict(m) for m in self.metrics],
            "model_path": str(self.model_path),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunResult":
        """What `to_dict` gave."""
        metrics = tuple(Metric(**metric) for metric in content["metrics"])
        return cls(**{**content, "metrics": metrics, "model_path": Path(content["model_path"])})


RESULT, MODEL, AVERAGE = "result.json", "model", "average"


@dataclass
class RunRecord:
    """The measurements of one run and its files. ``seconds`` everywhere are those of this attempt.

    ``tokenizer`` is the fingerprint of the one that made the shards, noted beside the model.
    """

    spec: RunSpec
    processes: Processes = ALONE
    metrics: list[Metric] = field(default_factory=list)
    seconds_before: float = 0.0
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        self.fingerprint = self.spec.fingerprint()
        self.checkpoints = self.spec.directory / "checkpoints"
        self.models = self.spec.directory / "models"
        self.published = PublishedRun.of(self.spec.directory)

    def finished(self) -> RunResult | None:
        """The result already there; raises `InvalidSpec` where it is another run's."""
        path = self.spec.directory / RESULT
        if self.published is not None:
            self.published.fetch_result(RESULT)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataMissing(path, f"is not a readable result: {error}") from error
        if content["fingerprint"] != self.fingerprint:
            raise InvalidSpec(f"{self.spec.directory} holds the result of another run", "directory")
        return RunResult.from_dict(content["result"])

    def checkpoint_steps(self) -> set[int]:
        """Steps to resume from, those that another machine left in the store included."""
        if self.published is not None:
            self.published.fetch_checkpoints(self.checkpoints)
        return self.processes.same(checkpoint_steps(self.checkpoints))

    def resume(self, step: int) -> Checkpoint:
        """Take over metrics and time of a checkpoint, and return it; `InvalidSpec` where it is another run's."""
        checkpoint = read_checkpoint(self.checkpoints, step, self.processes)
        state: Any = checkpoint.state
        if state["fingerprint"] != self.fingerprint:
            raise InvalidSpec(f"{self.spec.directory} holds a checkpoint of another run", "directory")
        self.metrics = [Metric(**metric) for metric in state["metrics"]]
        self.seconds_before = state["seconds"]
        return checkpoint

    def add_checkpoint(self, step: int, tensors: dict[str, Tensor], seconds: float) -> None:
        """Write a checkpoint beside the older ones."""
        state: dict[str, object] = {
            "fingerprint": self.fingerprint,
            "metrics": [asdict(metric) for metric in self.metrics],
            "seconds": self.seconds_before + seconds,
        }
        path = add_checkpoint(self.checkpoints, Checkpoint(step, tensors, state), self.processes)
        if self.published is not None and self.processes.is_first:
            self.published.publish_checkpoint(path)

    def drop_older_checkpoints(self) -> None:
        """Keep the newest, as many as are asked for, and nothing of what was killed while it wrote an older one."""
        if not self.processes.is_first:
            return
        there = sorted(self.checkpoints.glob("step-*")) or [self.checkpoints / _name(0)]
        kept = self.spec.keeping.checkpoints
        killed = (path for path in self.checkpoints.glob(".step-*") if path.name[1:] < there[-1].name)
        for path in (*there[:-kept], *killed):
            shutil.rmtree(path, ignore_errors=True)
        if self.published is not None:
            self.published.drop_older_checkpoints(self.checkpoints, kept)

    def keep_model(self, step: int, parameters: Mapping[str, Tensor]) -> None:
        """Keep the model of an evaluation, as long as it is wanted; of several processes the first does."""
        if not self.processes.is_first:
            return
        save_model(self.models / _name(step), self.spec.model, parameters, self.saved_training(step))
        if not self.spec.keeping.models:
            for path in sorted(self.models.glob("step-*"))[: -self.spec.keeping.average]:
                shutil.rmtree(path, ignore_errors=True)

    def write_average(self) -> Path:
        """Write the mean of the last evaluations' models, as many as are asked for; answers its folder."""
        path = self.spec.directory / AVERAGE
        if self.processes.is_first:
            average_models(sorted(self.models.glob("step-*"))[-self.spec.keeping.average :], path)
        self.processes.wait()
        return path

    def write_model(self, parameters: Mapping[str, Tensor]) -> None:
        """Write the trained model; of several processes the first does."""
        if self.processes.is_first:
            save_model(
                self.spec.directory / MODEL,
                self.spec.model,
                parameters,
                self.saved_training(self.spec.training.steps),
            )

    def add_metrics(self, step: int, values: Mapping[str, float]) -> list[Metric]:
        """Keep each task's metric after ``step`` steps; one that is not finite means the model diverged."""
        if not all(value < float("inf") for value in values.values()):
            raise Diverged(step)
        tokens = step * self.spec.training.tokens_per_step
        added = [Metric(step, tokens, task, value) for task, value in values.items()]
        self.metrics += added
        return added

    def write_result(
        self, realised_tokens: dict[str, int], seconds: float, average: Mapping[str, float]
    ) -> RunResult:
        """Write the result beside the model, which marks the run as finished, then drop the checkpoints.

        ``average`` is what the mean of the last models measured. Of several processes the first writes, and all
        answer what it has written.
        """
        result = None
        if self.processes.is_first:
            result = self._write_result(realised_tokens, seconds, average)
        result = self.processes.same(result)
        assert result is not None
        return result

    def _write_result(
        self, realised_tokens: dict[str, int], seconds: float, average: Mapping[str, float]
    ) -> RunResult:
        training, model = self.spec.training, self.spec.model
        values: dict[str, list[float]] = {}
        late = training.evaluation_steps()  # the noise is that of a trained model
        for metric in self.metrics:
            if metric.step in late:
                values.setdefault(metric.task, []).append(metric.value)
        beside = {task.further for task in self.spec.tasks}
        path = self.spec.directory / MODEL
        counts = counted(model)
        tokens = training.steps * training.tokens_per_step
        seconds += self.seconds_before
        result = RunResult(
            metrics=tuple(self.metrics),
            final={task: series[-1] for task, series in values.items() if task not in beside},
            further={task: series[-1] for task, series in values.items() if task in beside},
            noise={task: statistics.stdev(series) for task, series in values.items() if len(series) > 1},
            realised_tokens=realised_tokens,
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens / max(1e-9, seconds),
            parameters=counts.parameters,
            non_embedding_parameters=counts.non_embedding_parameters,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            model_path=path,
            average=dict(average),
        )
        write_json(
            self.spec.directory / RESULT, {"fingerprint": self.fingerprint, "result": result.to_dict()}
        )
        if self.published is not None:
            self.published.publish_result(RESULT)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        return result

    def saved_training(self, step: int) -> SavedTraining:
        """What a run that starts from this one's model after so many steps has to know."""
        training = self.spec.training
        tokens = step * training.tokens_per_step
        if self.spec.starting is not None and self.spec.starting.saved is not None:
            tokens += self.spec.starting.saved.tokens
        rate = learning_rate_at(step - 1, training, peak_rate(self.spec))
        return SavedTraining(rate, tokens, self.tokenizer)
