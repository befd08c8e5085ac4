"""One training run from start to result; killed at any moment and started again, it gives the same numbers."""

import time
from collections.abc import Callable, Mapping

import torch

from proxy_models.errors import Stopped
from proxy_models.evaluation.scores import Scored, evaluate
from proxy_models.families.learning_rate import peak_rate
from proxy_models.families.starting_state import starting_state
from proxy_models.training.allocator import keep_freed_memory
from proxy_models.training.run_inputs import (
    check_start,
    end_of_text,
    mixture_sampler,
    open_shards,
    scored_slices,
    scored_tasks,
)
from proxy_models.training.run_record import RunRecord
from proxy_models.training.run_result import Metric, RunProgress, RunResult
from proxy_models.training.run_spec import RunSpec, TaskSpec
from proxy_models.training.step import Trainer

__all__ = ["Metric", "RunProgress", "RunResult", "RunSpec", "TaskSpec", "train_run"]

PROGRESS_SECONDS = 1.0
CHECKPOINT_SHARE = 0.02
"""Checkpoints may cost this share of the time: a slow disk stretches the interval."""


def _ignore(progress: RunProgress) -> None:
    pass


def _never() -> bool:
    return False


def train_run(
    spec: RunSpec,
    progress: Callable[[RunProgress], None] = _ignore,
    stopping: Callable[[], bool] = _never,
) -> RunResult:
    """Train and evaluate as ``spec`` says, or continue, or return the result already there.

    ``stopping`` is asked before every step; where it says yes, a checkpoint is written and `Stopped` raised.
    Raises `ProxyError`s: bad settings before the first step, `Diverged` when the loss or a measurement is no
    number, and `StorageFailed` (retryable) when a write fails. A directory that holds another run is refused.
    """
    record = RunRecord(spec)
    if (finished := record.finished()) is not None:
        return finished
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    run = _Run(record, progress, stopping)
    run.resume()
    return run.finish()


class _Run:
    def __init__(
        self,
        record: RunRecord,
        progress: Callable[[RunProgress], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.record, self.spec, self.progress, self.stopping = record, record.spec, progress, stopping
        shards = open_shards(self.spec)
        self.sampler = mixture_sampler(self.spec, shards)
        self.tasks, self.slices = scored_tasks(self.spec), scored_slices(self.spec, shards)
        record.tokenizer = check_start(self.spec, shards)
        self.trainer = Trainer(
            self.spec.model, self.spec.training, self.sampler, self.spec.device, peak_rate(self.spec)
        )
        self.trainer.learner.documents.end_of_text = end_of_text(shards)
        self.started = time.monotonic()

    def resume(self) -> None:
        """Take over the newest checkpoint, if there is one of this run; else what the run is to start from."""
        if steps := self.record.checkpoint_steps():
            found = self.record.resume(max(steps))
            self.trainer.load(found.tensors, found.step)
        elif (start := self.spec.starting) is not None:
            self.trainer.load(starting_state(start, self.spec.model), 0)

    def finish(self) -> RunResult:
        """Train what is left, evaluate on the way, write model and result."""
        training = self.spec.training
        evaluated_at = set(training.evaluation_steps())
        saved = reported = self.started
        first, saving = self.trainer.steps_done, 0.0
        while self.trainer.steps_done < training.steps:
            if self.stopping():
                if self.trainer.steps_done > first:
                    self.save()
                raise Stopped(self.trainer.steps_done)
            loss = self.trainer.step()
            step, now = self.trainer.steps_done, time.monotonic()
            if step in evaluated_at:
                self.evaluate(self.tasks)
            if now - reported >= PROGRESS_SECONDS or step == training.steps:
                reported = now
                self.report(loss, step - first)
            due = max(self.spec.checkpoint_seconds, saving / CHECKPOINT_SHARE)
            if step < training.steps and now - saved >= due:
                saving = self.save()
                saved = time.monotonic()
        self.evaluate(self.slices)
        return self.record.write_result(
            dict(self.trainer.model.named_parameters()), self.sampler.realised_tokens(), self.seconds
        )

    def save(self) -> float:
        """Checkpoint the run as it is, with every measurement up to now; answers the seconds the writing took."""
        began = time.monotonic()
        self.record.add_checkpoint(self.trainer.steps_done, self.trainer.state(), self.seconds)
        self.record.drop_older_checkpoints()
        return time.monotonic() - began

    def report(self, loss: float, steps: int) -> None:
        """Tell how far the run is."""
        per_step, total = self.spec.training.tokens_per_step, self.spec.training.steps
        rate = steps * per_step / max(1e-9, time.monotonic() - self.started)
        self.progress(RunProgress(self.trainer.steps_done * per_step, total * per_step, rate, loss))

    def evaluate(self, tasks: Mapping[str, Scored]) -> None:
        """Measure the model as it is."""
        if tasks:
            values = evaluate(self.trainer.model, tasks, self.spec.device)
            self.record.add_metrics(self.trainer.steps_done, values)

    @property
    def seconds(self) -> float:
        """Time spent in this attempt."""
        return time.monotonic() - self.started
