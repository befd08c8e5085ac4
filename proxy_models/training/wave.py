"""The training loop: runs of one shape together, a single run as a wave of one.

Each run keeps its own directory, checkpoints and result; killed at any moment and started again, it gives the same
numbers.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch

from proxy_models.backends import ONE_BY_ONE, STACKED, build, stackable
from proxy_models.config import TrainingConfig
from proxy_models.errors import Cancelled, Diverged, InvalidSpec, ProxyError, Stopped, UnequalWave
from proxy_models.evaluation import Scored
from proxy_models.families.counting import counted
from proxy_models.families.start import read_start
from proxy_models.planning.memory import check_fits
from proxy_models.text.token_shard import TokenShard
from proxy_models.torch_device import free_memory, product_flops
from proxy_models.training.mixture_sampler import MixtureSampler, WaveSampler
from proxy_models.training.processes import ALONE, Processes
from proxy_models.training.run_inputs import (
    mixture_sampler,
    open_shards,
    peak_rate,
    scored_slices,
    scored_tasks,
    starting_state,
)
from proxy_models.training.run_record import Metric, RunProgress, RunRecord, RunResult
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import Backend, Learned, keep_freed_memory, learning_rate_at

if TYPE_CHECKING:
    from proxy_models.training.distributed import Engine

PROGRESS_SECONDS = 1.0
CURVE_POINTS = 500
"""Steps of a run whose loss is told; the same ones after a resume."""
CHECKPOINT_SHARE = 0.02
"""Checkpoints may cost this share of the time: a slow disk stretches the interval."""
CURVES = ("training/loss", "training/gradient_norm", "training/learning_rate")
OWN = ("mixture", "directory", "training", "checkpoint_seconds", "max_epochs")
OWN_TRAINING = ("seed", "learning_rate")


def _nothing(*_: object) -> None:
    pass


def _never(*_: object) -> bool:
    return False


@dataclass(frozen=True)
class WaveOptions:
    """How a wave is trained; the numbers depend on none of it (on a CPU, and but for compiled backends, not at all).

    ``progress`` is told each member's index and how far it is, ``measured`` what was measured on the way, the loss of
    about `CURVE_POINTS` steps too (some of it again, after a resume); ``cancelled`` is asked for each, once a second;
    ``stopping`` is asked before every step, and ends all of them with a checkpoint and `Stopped`; ``ended`` is told
    what became of a member as soon as that is known and, where it succeeded, on disk. With an ``engine`` a single
    run is trained by several processes, each of which calls `train_wave`; no ``backend`` and no ``cancelled`` then.
    """

    backend: str = STACKED
    progress: Callable[[int, RunProgress], None] = _nothing
    measured: Callable[[int, Sequence[Metric]], None] = _nothing
    cancelled: Callable[[int], bool] = _never
    stopping: Callable[[], bool] = _never
    ended: Callable[[int, RunResult | ProxyError], None] = _nothing
    engine: "Engine | None" = None

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return ALONE if self.engine is None else self.engine.processes


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
                expected, own_value = getattr(mine, name), getattr(theirs, name)
                if expected != own_value:
                    raise UnequalWave(member, name, expected, own_value)


def train_wave(specs: Sequence[RunSpec], options: WaveOptions | None = None) -> list[RunResult | ProxyError]:
    """Train and evaluate all runs, or continue them from their checkpoints; finished ones are returned.

    Runs go on together from the newest checkpoint they share; those left at another step (by another wave that was
    killed) are trained after them. The results are those of `train_run`, in the order of ``specs``; ``seconds`` is
    a run's share of the time. A run that diverges, is cancelled or cannot be trained (its mixture, its files) has
    that error in its place; the others do not notice. Raises what concerns the whole wave before the first step:
    `UnequalWave`, `NotEnoughMemory`, an unknown backend.
    """
    check_wave(specs)
    options = options or WaveOptions()
    records = [RunRecord(spec, options.processes) for spec in specs]
    outcomes: dict[int, RunResult | ProxyError] = {}

    def ended(member: int, outcome: RunResult | ProxyError) -> None:
        outcomes[member] = outcome
        options.ended(member, outcome)

    samplers: dict[int, MixtureSampler] = {}
    shards: dict[str, TokenShard] = {}
    for member, record in enumerate(records):
        try:
            if (finished := record.finished()) is not None:
                ended(member, finished)
            else:
                shards = shards or open_shards(
                    record.spec
                )  # the same for all: they share the orders of their rows
                samplers[member] = mixture_sampler(record.spec, shards)
        except ProxyError as error:
            ended(member, error)
    open_ = list(samplers)
    if open_:
        torch.set_num_threads(specs[0].threads)
        keep_freed_memory()
    for step, members in together([records[member].checkpoint_steps() for member in open_]):
        numbers = [open_[member] for member in members]
        if options.processes.any(options.stopping(), specs[0].device):
            for number in numbers:
                ended(number, Stopped(step))
            continue
        runs = [(number, records[number], samplers[number]) for number in numbers]
        wave = _Wave(runs, replace(options, ended=ended))
        wave.resume(step)
        wave.finish()
    return [outcomes[member] for member in range(len(specs))]


def together(steps: Sequence[AbstractSet[int]]) -> list[tuple[int, list[int]]]:
    """Groups of members that share a checkpoint, with its step (0: from the start), the largest group first.

    ``steps`` are each member's checkpoints. A member is in exactly one group. A step that most share goes before a
    later one that few have: a kill, between two checkpoints of a wave or in another set of runs, leaves members at
    different steps.
    """
    left = {member: set(own) or {0} for member, own in enumerate(steps)}
    groups: list[tuple[int, list[int]]] = []
    while left:
        shared = Counter(step for own in left.values() for step in own)
        step = max(shared, key=lambda step: (shared[step], step))
        members = [member for member, own in left.items() if step in own]
        groups.append((step, members))
        for member in members:
            del left[member]
    return groups


def train_run(
    spec: RunSpec,
    progress: Callable[[RunProgress], None] = _nothing,
    stopping: Callable[[], bool] = _never,
) -> RunResult:
    """Train and evaluate as ``spec`` says, or continue, or return the result already there: a wave of one.

    ``stopping`` is asked before every step; where it says yes, a checkpoint is written and `Stopped` raised.
    Raises `ProxyError`s: bad settings before the first step, `Diverged` when the loss or a measurement is no
    number, and `StorageFailed` (retryable) when a write fails. A directory that holds another run is refused.

        result = train_run(RunSpec.from_dict(order), lambda progress: print(progress.loss))
        result.final["held-out/books"]  # BPB
    """
    options = WaveOptions(ONE_BY_ONE, progress=lambda _, progress_: progress(progress_), stopping=stopping)
    (outcome,) = train_wave([spec], options)
    if isinstance(outcome, ProxyError):
        raise outcome
    return outcome


class _Wave:
    def __init__(self, runs: list[tuple[int, RunRecord, MixtureSampler]], options: WaveOptions) -> None:
        self.numbers = [number for number, _, _ in runs]
        self.records = [record for _, record, _ in runs]
        self.samplers = [sampler for _, _, sampler in runs]
        self.options = options
        first = self.spec = self.records[0].spec
        self.training = first.training
        if options.engine is None and options.backend != ONE_BY_ONE:
            shape = stackable(first.model, options.backend)
            check_fits(shape, first.training, len(runs), first.device, free_memory(first.device))
        shards = open_shards(first)
        meta = next(iter(shards.values())).meta  # they are of one tokenizer
        for record in self.records:
            record.tokenizer = meta.tokenizer
            if record.spec.starting is not None:
                record.spec.starting.check_tokenizer(meta.tokenizer)
        self.batches = WaveSampler(self.samplers, options.processes.rows(first.training.batch_rows))
        self.tasks, self.slices = scored_tasks(first), scored_slices(first, shards)
        trainings = [record.spec.training for record in self.records]
        self.peaks = [peak_rate(record.spec) for record in self.records]
        self.backend = self.build(trainings)
        self.backend.separate_documents(meta.end_of_text)
        self.ended: dict[int, ProxyError] = {}
        self.steps_done = 0
        self.started = time.monotonic()
        self.most_flops: float | None = None

    def build(self, trainings: Sequence[TrainingConfig]) -> Backend:
        """What the runs are trained by."""
        first, engine = self.spec, self.options.engine
        if engine is None:
            return build(self.options.backend, first.model, trainings, first.device)
        from proxy_models.training.distributed import Distributed  # half a second that waves do not need

        return Distributed(first.model, trainings[0], engine, first.device)

    def agreed(self, flag: bool) -> bool:
        """Whether any of the processes says so: all of them stop, or save, at one step."""
        return self.options.processes.any(flag, self.spec.device)

    def resume(self, step: int) -> None:
        """Go on from every run's checkpoint after ``step`` steps; 0 is the start, or what they start from."""
        self.steps_done = step
        start = self.spec.starting
        for member, record in enumerate(self.records if step or start is not None else ()):
            try:
                if step:
                    checkpoint = record.resume(step)
                    self.backend.load(member, checkpoint.tensors, checkpoint.step)
                elif start is not None:
                    self.backend.load(member, starting_state(start, self.spec.model), 0)
            except ProxyError as error:
                self.end(member, error)

    def finish(self) -> None:
        """Train what is left, evaluate on the way, write models and results, and tell what became of each run."""
        evaluated_at = {*self.training.evaluation_steps(), *self.spec.often_evaluated}
        saved = reported = self.started
        first, saving = self.steps_done, 0.0
        while self.steps_done < self.training.steps and len(self.ended) < len(self.records):
            if self.agreed(self.options.stopping()):
                self.stop(first)
                return
            losses = self.step()
            now = time.monotonic()
            if self.steps_done in evaluated_at:
                self.evaluate(
                    self.tasks or (self.slices if self.steps_done in self.spec.often_evaluated else {})
                )
                self.keep_models()
            last = self.steps_done == self.training.steps
            if last or now - reported >= PROGRESS_SECONDS:
                reported = now
                self.report(losses, self.steps_done - first)
            due = max(self.spec.checkpoint_seconds, saving / CHECKPOINT_SHARE)
            if not last and self.agreed(now - saved >= due):
                saving = self.save()
                saved = time.monotonic()
        if self.going:
            self.evaluate(self.slices)
        for member in self.going:
            self.options.ended(self.numbers[member], self.result(member))

    def step(self) -> tuple[float, ...]:
        """One step of every run that goes on."""
        step = self.steps_done
        batches = self.batches.batch(step)
        rates = [learning_rate_at(step, self.training, peak) for peak in self.peaks]
        learned = self.backend.learn(batches, rates)
        for member in self.going:
            if learned.diverged(member):
                self.end(member, Diverged(step + 1))
        self.steps_done += 1
        self.tell(learned, rates)
        return learned.losses

    def tell(self, learned: Learned, rates: Sequence[float]) -> None:
        """Tell the curves of training, at steps that the number of them decides."""
        steps, done = self.training.steps, self.steps_done
        if self.options.measured is _nothing or (done % math.ceil(steps / CURVE_POINTS) and done != steps):
            return
        tokens = done * self.training.tokens_per_step
        for member in self.going:
            curves = zip(CURVES, (learned.losses[member], learned.norms[member], rates[member]), strict=True)
            told = [Metric(done, tokens, name, value) for name, value in curves]
            self.options.measured(self.numbers[member], told)

    @property
    def going(self) -> list[int]:
        """The members that neither diverged nor were cancelled."""
        return [member for member in range(len(self.records)) if member not in self.ended]

    def end(self, member: int, error: ProxyError) -> None:
        """Train the member no further. Its last checkpoint stays: started again, it goes on from there."""
        self.ended[member] = error
        self.backend.drop(member)
        self.options.ended(self.numbers[member], error)

    def stop(self, first: int) -> None:
        """End every run that goes on with a checkpoint, unless none has got further than ``first``."""
        if self.steps_done > first:
            self.save()
        for member in self.going:
            self.ended[member] = Stopped(self.steps_done)
            self.options.ended(self.numbers[member], self.ended[member])

    def report(self, losses: Sequence[float], steps: int) -> None:
        """Tell how far the runs are, and hear which are cancelled."""
        per_step, total = self.training.tokens_per_step, self.training.steps
        rate = steps * per_step / max(1e-9, time.monotonic() - self.started)
        for member in self.going:
            number = self.numbers[member]
            self.options.progress(
                number,
                RunProgress(
                    self.steps_done * per_step, total * per_step, rate, losses[member], self.mfu(rate)
                ),
            )
            if self.options.cancelled(number):
                self.end(member, Cancelled(self.steps_done))

    def mfu(self, rate: float) -> float | None:
        """Of a full run the share of what its devices can compute that ``rate`` tokens a second take."""
        if self.options.measured is _nothing:
            return None
        if self.most_flops is None:
            self.most_flops = product_flops(self.spec.device, self.training.precision)
        per_token = counted(self.spec.model).flops_per_token(self.training.sequence_length)
        return rate * per_token / (self.most_flops * self.options.processes.count)

    def evaluate(self, tasks: Mapping[str, Scored]) -> None:
        """Measure the runs that still go on; one whose measurement is no number has diverged."""
        if not (tasks and self.going):
            return
        values = self.backend.evaluate(tasks)
        for member in self.going:
            try:
                added = self.records[member].add_metrics(self.steps_done, values[member])
                self.options.measured(self.numbers[member], added)
            except Diverged as error:
                self.end(member, error)

    def save(self) -> float:
        """Checkpoint every run that goes on, then drop the older ones: at any moment all have one step in common.

        Every measurement up to now is among them. Answers the seconds the writing took.
        """
        began = time.monotonic()
        for member in self.going:
            self.records[member].add_checkpoint(self.steps_done, self.backend.state(member), self.seconds)
        for member in self.going:
            self.records[member].drop_older_checkpoints()
        return time.monotonic() - began

    @property
    def seconds(self) -> float:
        """A run's share of the time of this attempt."""
        return (time.monotonic() - self.started) / len(self.records)

    def result(self, member: int) -> RunResult:
        """Write the member's model and result."""
        self.records[member].write_model(self.backend.parameters(member))
        average = self.averaged(member) if self.spec.keeping.average else {}
        return self.records[member].write_result(
            self.samplers[member].realised_tokens(), self.seconds, average
        )

    def keep_models(self) -> None:
        """Keep every run's model of an evaluation, where that is wanted."""
        if self.spec.keeping.models or self.spec.keeping.average:
            for member in self.going:
                self.records[member].keep_model(self.steps_done, self.backend.parameters(member))

    def averaged(self, member: int) -> dict[str, float]:
        """Write and measure the mean of the last evaluations' models, with which the member ends."""
        folder = self.records[member].write_average()
        self.backend.load(member, starting_state(read_start(folder), self.spec.model), self.steps_done)
        return self.backend.evaluate({**self.tasks, **self.slices})[member]
