"""One training run from start to result; killed at any moment and started again, it gives the same numbers."""

import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from proxy_models.allocator import keep_freed_memory
from proxy_models.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    remove_checkpoints,
    save_checkpoint,
    save_model,
)
from proxy_models.errors import DataMissing, Diverged, InvalidSpec
from proxy_models.evaluation import Scored, evaluate
from proxy_models.run_inputs import mixture_sampler, open_shards, scored_slices, scored_tasks
from proxy_models.run_result import Metric, RunProgress, RunResult
from proxy_models.run_spec import RunSpec, TaskSpec
from proxy_models.storage import write_json
from proxy_models.training import Trainer

__all__ = ["Metric", "RunProgress", "RunResult", "RunSpec", "TaskSpec", "train_run"]

PROGRESS_SECONDS = 1.0
CHECKPOINT_SHARE = 0.02
"""Checkpoints may cost this share of the time: a slow disk stretches the interval."""

RESULT = "result.json"


def _ignore(progress: RunProgress) -> None:
    pass


def train_run(spec: RunSpec, progress: Callable[[RunProgress], None] = _ignore) -> RunResult:
    """Train and evaluate as ``spec`` says, or continue, or return the result already there.

    Raises `ProxyError`s: bad settings before the first step, `Diverged` when the loss is no number, and
    `StorageFailed` (retryable) when a write fails. A directory that holds another run is refused.
    """
    fingerprint = spec.fingerprint()
    if (finished := _finished(spec, fingerprint)) is not None:
        return finished
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    run = _Run(spec, fingerprint, progress)
    run.resume()
    return run.finish()


def _finished(spec: RunSpec, fingerprint: str) -> RunResult | None:
    path = spec.directory / RESULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataMissing(path, f"is not a readable result: {error}") from error
    if content["fingerprint"] != fingerprint:
        raise InvalidSpec(f"{spec.directory} holds the result of another run", "directory")
    return RunResult.from_dict(content["result"])


@dataclass
class _Run:
    spec: RunSpec
    fingerprint: str
    progress: Callable[[RunProgress], None]
    metrics: list[Metric] = field(default_factory=list)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        shards = open_shards(self.spec)
        self.sampler = mixture_sampler(self.spec, shards)
        self.tasks, self.slices = scored_tasks(self.spec), scored_slices(self.spec, shards)
        self.trainer = Trainer(self.spec.model, self.spec.training, self.sampler, self.spec.device)
        self.checkpoints = self.spec.directory / "checkpoints"

    def resume(self) -> None:
        """Take over the newest checkpoint, if there is one of this run."""
        if (found := latest_checkpoint(self.checkpoints)) is None:
            return
        state: Any = found.state
        if state["fingerprint"] != self.fingerprint:
            raise InvalidSpec(f"{self.spec.directory} holds a checkpoint of another run", "directory")
        self.trainer.load(found.tensors, found.step)
        self.metrics = [Metric(**metric) for metric in state["metrics"]]
        self.seconds_before = state["seconds"]

    def finish(self) -> RunResult:
        """Train what is left, evaluate on the way, write model and result."""
        training = self.spec.training
        evaluated_at = set(training.evaluation_steps())
        saved = reported = self.started
        first, saving = self.trainer.steps_done, 0.0
        while self.trainer.steps_done < training.steps:
            loss = self.trainer.step()
            step, now = self.trainer.steps_done, time.monotonic()
            if step in evaluated_at and self.tasks:
                self.measure(self.tasks)
            if now - reported >= PROGRESS_SECONDS or step == training.steps:
                reported = now
                self.report(loss, step - first)
            due = max(self.spec.checkpoint_seconds, saving / CHECKPOINT_SHARE)
            if step < training.steps and now - saved >= due:
                self.save()
                saved = time.monotonic()
                saving = saved - now
        self.measure(self.slices)
        return self.write_result()

    def report(self, loss: float, steps: int) -> None:
        """Tell how far the run is."""
        per_step, total = self.spec.training.tokens_per_step, self.spec.training.steps
        rate = steps * per_step / max(1e-9, time.monotonic() - self.started)
        self.progress(RunProgress(self.trainer.steps_done * per_step, total * per_step, rate, loss))

    def measure(self, tasks: dict[str, Scored]) -> None:
        """Evaluate the model as it is; a BPB that is not finite means it diverged."""
        step = self.trainer.steps_done
        tokens = step * self.spec.training.tokens_per_step
        for task, value in evaluate(self.trainer.model, tasks, self.spec.device).items():
            if not value < float("inf"):
                raise Diverged(step)
            self.metrics.append(Metric(step, tokens, task, value))

    def save(self) -> None:
        """Write a checkpoint of everything `resume` needs."""
        state: dict[str, object] = {
            "fingerprint": self.fingerprint,
            "metrics": [asdict(metric) for metric in self.metrics],
            "seconds": self.seconds,
        }
        save_checkpoint(self.checkpoints, Checkpoint(self.trainer.steps_done, self.trainer.state(), state))

    @property
    def seconds(self) -> float:
        """Time spent so far, checkpointed attempts included."""
        return self.seconds_before + time.monotonic() - self.started

    def write_result(self) -> RunResult:
        """Write the model, then the result, which marks the run as finished, then drop the checkpoints."""
        training, model = self.spec.training, self.spec.model
        values: dict[str, list[float]] = {}
        for metric in self.metrics:
            values.setdefault(metric.task, []).append(metric.value)
        path = self.spec.directory / "model"
        save_model(path, model, dict(self.trainer.model.named_parameters()))
        tokens = training.steps * training.tokens_per_step
        result = RunResult(
            metrics=tuple(self.metrics),
            final={task: series[-1] for task, series in values.items()},
            noise={task: statistics.stdev(series) for task, series in values.items() if len(series) > 1},
            realised_tokens=self.sampler.realised_tokens(),
            tokens=tokens,
            seconds=self.seconds,
            tokens_per_second=tokens / max(1e-9, self.seconds),
            parameters=model.parameters,
            non_embedding_parameters=model.non_embedding_parameters,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            model_path=path,
        )
        write_json(
            self.spec.directory / RESULT, {"fingerprint": self.fingerprint, "result": result.to_dict()}
        )
        remove_checkpoints(self.checkpoints)
        return result
