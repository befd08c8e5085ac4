"""Runs of one shape trained together; each keeps its own directory, checkpoints and result."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from proxy_models.allocator import keep_freed_memory
from proxy_models.backends.backend import ONE_BY_ONE, STACKED
from proxy_models.backends.registry import build
from proxy_models.config import TrainingConfig
from proxy_models.errors import Cancelled, Diverged, InvalidSpec, ProxyError, UnequalWave
from proxy_models.evaluation import Scored
from proxy_models.memory import check_fits
from proxy_models.run import CHECKPOINT_SHARE, PROGRESS_SECONDS
from proxy_models.run_inputs import mixture_sampler, open_shards, scored_slices, scored_tasks
from proxy_models.run_record import RunRecord
from proxy_models.run_result import RunProgress, RunResult
from proxy_models.run_spec import RunSpec
from proxy_models.training import learning_rate_at

OWN = ("mixture", "directory", "training", "checkpoint_seconds", "max_epochs")
OWN_TRAINING = ("seed", "learning_rate")


def _nothing(member: int, progress: RunProgress) -> None:
    pass


def _never(member: int) -> bool:
    return False


@dataclass(frozen=True)
class WaveOptions:
    """How a wave is trained; the numbers depend on none of it (on a CPU, and but for compiled backends, not at all).

    ``progress`` is told each member's index and how far it is; ``cancelled`` is asked for each, once a second.
    """

    backend: str = STACKED
    progress: Callable[[int, RunProgress], None] = _nothing
    cancelled: Callable[[int], bool] = _never


def check_wave(specs: Sequence[RunSpec]) -> None:
    """Raise `UnequalWave` naming the first run and setting that differ in shape; `InvalidSpec` for an empty wave."""
    if not specs:
        raise InvalidSpec("a wave needs at least one run", "runs")
    first = specs[0]
    places = [spec.directory for spec in specs]
    for member, spec in enumerate(specs):
        if spec.directory in places[:member]:
            raise InvalidSpec(f"run {member} of the wave shares {spec.directory} with another", "directory")
        for mine, theirs, names, own in (
            (first, spec, fields(RunSpec), OWN),
            (first.training, spec.training, fields(TrainingConfig), OWN_TRAINING),
        ):
            for name in (field.name for field in names if field.name not in own):
                expected, found = getattr(mine, name), getattr(theirs, name)
                if expected != found:
                    raise UnequalWave(member, name, expected, found)


def train_wave(specs: Sequence[RunSpec], options: WaveOptions | None = None) -> list[RunResult | ProxyError]:
    """Train and evaluate all runs, or continue them from their last common checkpoint; finished ones are returned.

    The results are those of `run.train_run`, in the order of ``specs``; ``seconds`` is a run's share of the time. A
    run that diverges or is cancelled has the `Diverged` or `Cancelled` in its place; the others do not notice. Raises
    what concerns the whole wave before the first step: `UnequalWave`, `NotEnoughMemory`, bad settings, missing data.
    """
    check_wave(specs)
    records = [RunRecord(spec) for spec in specs]
    outcomes: list[RunResult | ProxyError | None] = [record.finished() for record in records]
    if open_ := [member for member, outcome in enumerate(outcomes) if outcome is None]:
        torch.set_num_threads(specs[0].threads)
        keep_freed_memory()
        wave = _Wave(open_, [records[member] for member in open_], options or WaveOptions())
        wave.resume()
        for member, outcome in zip(open_, wave.finish(), strict=True):
            outcomes[member] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


class _Wave:
    def __init__(self, numbers: list[int], records: list[RunRecord], options: WaveOptions) -> None:
        self.numbers, self.records, self.options = numbers, records, options
        first = self.spec = records[0].spec
        self.training = first.training
        if options.backend != ONE_BY_ONE:
            check_fits(first.model, first.training, len(records), first.device)
        shards = open_shards(first)
        for record in records[1:]:
            open_shards(record.spec)  # its mixture must name the same domains
        self.samplers = [mixture_sampler(record.spec, shards) for record in records]
        self.tasks, self.slices = scored_tasks(first), scored_slices(first, shards)
        trainings = [record.spec.training for record in records]
        self.peaks = [one.learning_rate or first.model.default_learning_rate for one in trainings]
        self.backend = build(options.backend, first.model, trainings, first.device)
        self.ended: dict[int, ProxyError] = {}
        self.steps_done = 0
        self.started = time.monotonic()

    def resume(self) -> None:
        """Take over the newest checkpoint that every run has."""
        common = set.intersection(*(record.checkpoint_steps() for record in self.records))
        if not common:
            return
        self.steps_done = max(common)
        for member, record in enumerate(self.records):
            found = record.resume(self.steps_done)
            self.backend.load(member, found.tensors, found.step)
            ended: Any = found.state.get("ended")
            if ended is not None:
                self.end(member, _error(ended))

    def finish(self) -> list[RunResult | ProxyError]:
        """Train what is left, evaluate on the way, write models and results."""
        evaluated_at = set(self.training.evaluation_steps())
        saved = reported = self.started
        first, saving = self.steps_done, 0.0
        while self.steps_done < self.training.steps and len(self.ended) < len(self.records):
            losses = self.step()
            now = time.monotonic()
            if self.steps_done in evaluated_at and self.tasks:
                self.measure(self.tasks)
            last = self.steps_done == self.training.steps
            if last or now - reported >= PROGRESS_SECONDS:
                reported = now
                self.report(losses, self.steps_done - first)
            if not last and now - saved >= max(self.spec.checkpoint_seconds, saving / CHECKPOINT_SHARE):
                self.save()
                saved = time.monotonic()
                saving = saved - now
        self.measure(self.slices)
        return [self.outcome(member) for member in range(len(self.records))]

    def step(self) -> tuple[float, ...]:
        """One step of every run that goes on."""
        step = self.steps_done
        batches = np.stack([sampler.batch(step) for sampler in self.samplers])
        rates = [learning_rate_at(step, self.training, peak) for peak in self.peaks]
        learned = self.backend.learn(batches, rates)
        for member in self.going:
            if learned.diverged(member):
                self.end(member, Diverged(step + 1))
        self.steps_done += 1
        return learned.losses

    @property
    def going(self) -> list[int]:
        """The members that neither diverged nor were cancelled."""
        return [member for member in range(len(self.records)) if member not in self.ended]

    def end(self, member: int, error: ProxyError) -> None:
        """Train the member no further."""
        self.ended[member] = error
        self.backend.drop(member)

    def report(self, losses: Sequence[float], steps: int) -> None:
        """Tell how far the runs are, and hear which are cancelled."""
        per_step, total = self.training.tokens_per_step, self.training.steps
        rate = steps * per_step / max(1e-9, time.monotonic() - self.started)
        for member in self.going:
            number = self.numbers[member]
            self.options.progress(
                number, RunProgress(self.steps_done * per_step, total * per_step, rate, losses[member])
            )
            if self.options.cancelled(number):
                self.end(member, Cancelled(self.steps_done))

    def measure(self, tasks: Mapping[str, Scored]) -> None:
        """Evaluate the models as they are, on the same tokens."""
        if not self.going:
            return
        found = self.backend.evaluate(tasks)
        for member in self.going:
            try:
                self.records[member].add_metrics(self.steps_done, found[member])
            except Diverged as error:
                self.end(member, error)

    def save(self) -> None:
        """Checkpoint every run, then drop the older ones: at any moment all have one step in common."""
        for member, record in enumerate(self.records):
            ended = self.ended.get(member)
            note = {"ended": _note(ended)} if ended is not None else None
            record.add_checkpoint(self.steps_done, self.backend.state(member), self.seconds, note)
        for record in self.records:
            record.drop_older_checkpoints()

    @property
    def seconds(self) -> float:
        """A run's share of the time of this attempt."""
        return (time.monotonic() - self.started) / len(self.records)

    def outcome(self, member: int) -> RunResult | ProxyError:
        """Write the member's result, or say why there is none."""
        if (error := self.ended.get(member)) is not None:
            return error
        parameters = self.backend.parameters(member)
        return self.records[member].write_result(
            parameters, self.samplers[member].realised_tokens(), self.seconds
        )


def _note(error: ProxyError) -> dict[str, object]:
    assert isinstance(error, Diverged | Cancelled)
    return {"code": error.code, "step": error.step}


def _error(note: Mapping[str, Any]) -> ProxyError:
    return (Diverged if note["code"] == Diverged.code else Cancelled)(note["step"])
