import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from proxy_models.backends import ONE_BY_ONE, STACKED, Learned, Stacked
from proxy_models.config import SIZES, TrainingConfig
from proxy_models.errors import Cancelled, Diverged, InvalidSpec, NotEnoughMemory, UnequalWave
from proxy_models.model.stacked_model import StackedDecoder
from proxy_models.planning.memory import BUFFERS, bytes_per_model, check_fits, largest_wave
from proxy_models.training import wave as wave_module
from proxy_models.training.run_record import RunProgress, RunResult
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.wave import WaveOptions, check_wave, together, train_run, train_wave
from tests.proxy_models.conftest import load_model
from tests.proxy_models.test_families import numbers

ROOT = Path(__file__).parents[2]
MIXTURES = ((0.5, 0.3, 0.2), (0.1, 0.1, 0.8), (0.0, 1.0, 0.0))
CHILD = (
    "import json, sys\n"
    "from proxy_models.training.run_spec import RunSpec\n"
    "from proxy_models.training.wave import train_wave\n"
    "train_wave([RunSpec.from_dict(one) for one in json.load(open(sys.argv[1]))])\n"
)


@pytest.fixture
def wave_json(spec_json: dict, tmp_path: Path) -> list[dict]:
    training = {**spec_json["training"], "tokens": 15_000}
    return [
        {
            **spec_json,
            "mixture": dict(zip(spec_json["mixture"], weights, strict=True)),
            "directory": str(tmp_path / f"wave-{number}"),
            "training": {**training, "seed": number, "learning_rate": 2e-3 * (number + 1)},
        }
        for number, weights in enumerate(MIXTURES)
    ]


def specs(wave_json: list[dict], **changes: Any) -> list[RunSpec]:
    return [RunSpec.from_dict({**one, **changes}) for one in wave_json]


def elsewhere(runs: list[RunSpec], name: str) -> list[RunSpec]:
    return [replace(run, directory=run.directory.with_name(run.directory.name + name)) for run in runs]


def assert_same(found: object, expected: RunResult) -> None:
    mine, theirs = numbers(found), numbers(expected)
    for name in ("final", "noise"):
        assert mine.pop(name) == pytest.approx(theirs.pop(name), rel=1e-5, abs=1e-6)
    values = [[metric.pop("value") for metric in content["metrics"]] for content in (mine, theirs)]
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert mine == theirs


def test_a_wave_gives_each_run_the_result_of_training_it_alone(wave_json: list[dict]) -> None:
    runs = specs(wave_json)
    seen: dict[int, list[RunProgress]] = {}
    results = train_wave(
        runs, WaveOptions(progress=lambda member, told: seen.setdefault(member, []).append(told))
    )
    for member, (found, run) in enumerate(zip(results, elsewhere(runs, "-alone"), strict=True)):
        expected = train_run(run)
        assert_same(found, expected)
        assert isinstance(found, RunResult)
        mine, theirs = load_model(found.model_path), load_model(expected.model_path)
        assert mine[0] == theirs[0]
        for name, tensor in theirs[1].items():
            torch.testing.assert_close(mine[1][name], tensor, rtol=0, atol=5e-6)
        assert seen[member][-1].done == seen[member][-1].total == expected.tokens
        assert not (runs[member].directory / "checkpoints").exists()
    assert train_wave(runs) == results  # read, not trained again


def test_a_killed_wave_goes_on_from_its_last_common_checkpoint(wave_json: list[dict], tmp_path: Path) -> None:
    runs = specs(wave_json, checkpoint_seconds=0.05)
    expected = [numbers(result) for result in train_wave(elsewhere(runs, "-undisturbed"))]
    spec_file = tmp_path / "wave.json"
    spec_file.write_text(json.dumps([run.to_dict() for run in runs]))
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(spec_file)], cwd=ROOT, env=os.environ.copy())
    last = runs[-1].directory / "checkpoints"
    while not list(last.glob("step-*")) and child.poll() is None:
        pass  # until the last run has its first checkpoint
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (runs[0].directory / "result.json").exists()
    assert [numbers(result) for result in train_wave(runs)] == expected


class Stopped(Exception):
    """Stands for the end of a process."""


def test_a_kill_between_two_checkpoints_of_a_wave_leaves_a_common_one(
    wave_json: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = specs(wave_json, checkpoint_seconds=0.0)
    expected = [numbers(result) for result in train_wave(elsewhere(runs, "-undisturbed"))]
    monkeypatch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
    original = wave_module.RunRecord.add_checkpoint

    def add(self: Any, step: int, *rest: Any) -> None:
        if step == 7 and self.spec.directory == runs[1].directory:
            raise Stopped
        original(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(wave_module.RunRecord, "add_checkpoint", add)
        with pytest.raises(Stopped):
            train_wave(runs)
    steps = [sorted(path.name[-2:] for path in (run.directory / "checkpoints").iterdir()) for run in runs]
    assert steps == [["06", "07"], ["06"], ["06"]]
    assert [numbers(result) for result in train_wave(runs)] == expected


@pytest.mark.parametrize("backend", [ONE_BY_ONE, STACKED])
def test_a_run_that_diverges_and_one_that_is_cancelled_end_alone(
    wave_json: list[dict], monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    runs = specs(wave_json)
    undisturbed = train_wave(elsewhere(runs, "-undisturbed"), WaveOptions(backend))
    monkeypatch.setattr(wave_module, "PROGRESS_SECONDS", 0.0)
    told = []

    def cancelled(member: int) -> bool:
        told.append(member)
        return member == 2 and len(told) > 10

    kind = wave_module._Wave
    original = kind.step

    def poisoned(self: Any) -> tuple[float, ...]:
        if self.steps_done == 6:
            self.backend.parameters(0)["final_norm"].fill_(float("nan"))
        return original(self)

    monkeypatch.setattr(kind, "step", poisoned)
    found = train_wave(runs, WaveOptions(backend, cancelled=cancelled))
    assert isinstance(found[0], Diverged)
    assert "at step 7;" in str(found[0])
    assert isinstance(found[2], Cancelled)
    assert numbers(found[1]) == numbers(undisturbed[1])
    assert [(run.directory / "result.json").exists() for run in runs] == [False, True, False]


def test_a_run_that_diverged_diverges_again_when_its_wave_is_resumed(
    wave_json: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = specs(wave_json, checkpoint_seconds=0.0)
    expected = train_wave(elsewhere(runs, "-undisturbed"))
    monkeypatch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
    original = Stacked.learn

    def learn(self: Stacked, batches: np.ndarray, rates: list[float]) -> Learned:
        if self.steps_done == 4:
            self.parameters(1)["final_norm"].fill_(float("nan"))
        if self.steps_done == 9:
            raise Stopped
        return original(self, batches, rates)

    def poisoned(self: Stacked, batches: np.ndarray, rates: list[float]) -> Learned:
        if self.members == 1 and self.steps_done == 4:
            self.parameters(0)["final_norm"].fill_(float("nan"))
        return original(self, batches, rates)

    with monkeypatch.context() as patch:
        patch.setattr(Stacked, "learn", learn)
        with pytest.raises(Stopped):
            train_wave(runs)
        patch.setattr(Stacked, "learn", poisoned)
        found = train_wave(runs)
    assert isinstance(found[1], Diverged)
    assert "at step 5;" in str(found[1])
    for member in (0, 2):
        assert numbers(found[member]) == numbers(expected[member])


def test_another_set_of_runs_goes_on_from_wherever_each_of_them_was(
    wave_json: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed wave of runs 0 and 1, then a cancelled run 2 alone, then all three in one wave."""
    runs = specs(wave_json, checkpoint_seconds=0.0)
    expected = [numbers(result) for result in train_wave(elsewhere(runs, "-undisturbed"))]
    monkeypatch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
    monkeypatch.setattr(wave_module, "PROGRESS_SECONDS", 0.0)
    original = Stacked.learn

    def learn(self: Stacked, batches: np.ndarray, rates: list[float]) -> Learned:
        if self.steps_done == 9:
            raise Stopped
        return original(self, batches, rates)

    with monkeypatch.context() as patch:
        patch.setattr(Stacked, "learn", learn)
        with pytest.raises(Stopped):
            train_wave(runs[:2])
    (cancelled,) = train_wave(
        runs[2:], WaveOptions(cancelled=lambda _: bool(list(runs[2].directory.glob("*/*"))))
    )
    assert isinstance(cancelled, Cancelled)
    trained: list[tuple[int, int]] = []

    def counted(self: Stacked, batches: np.ndarray, rates: list[float]) -> Learned:
        trained.append((self.members, self.steps_done))
        return original(self, batches, rates)

    monkeypatch.setattr(Stacked, "learn", counted)
    told: dict[int, object] = {}
    results = train_wave(runs, WaveOptions(ended=told.__setitem__))
    assert [numbers(result) for result in results] == expected
    assert [told[member] for member in range(3)] == results
    steps = runs[0].training.steps
    assert trained[0] == (2, 9), "runs 0 and 1 did not go on together from their checkpoint"
    ended_after = int(str(cancelled).removeprefix("cancelled after step "))
    assert len(trained) == steps - 9 + steps - ended_after + 1


@given(st.lists(st.sets(st.integers(1, 5), max_size=3), min_size=1, max_size=8))
def test_every_run_is_in_one_group_and_has_its_checkpoint(steps: list[set[int]]) -> None:
    groups = together(steps)
    assert sorted(member for _, members in groups for member in members) == list(range(len(steps)))
    for step, members in groups:
        assert all(step in steps[member] or (step == 0 and not steps[member]) for member in members)
    assert [len(members) for _, members in groups] == sorted((len(m) for _, m in groups), reverse=True)
    if common := set.intersection(*map(set, steps)):
        assert groups == [(max(common), list(range(len(steps))))]


def test_waves_of_unequal_shape_are_refused_by_name(wave_json: list[dict]) -> None:
    runs = specs(wave_json)
    check_wave(runs)
    longer = replace(runs[1].training, sequence_length=32)
    with pytest.raises(UnequalWave, match=r"run 1 .* sequence_length 32, the first has 64") as caught:
        check_wave([runs[0], replace(runs[1], training=longer), runs[2]])
    assert caught.value.field == "sequence_length"
    with pytest.raises(UnequalWave, match=r"run 2 .* size 'nano-1M'"):
        train_wave([*runs[:2], replace(runs[2], size="nano-1M")])
    with pytest.raises(InvalidSpec, match="shares"):
        check_wave([runs[0], runs[0]])
    with pytest.raises(InvalidSpec, match="at least one"):
        check_wave([])
    assert not runs[0].directory.exists()


def test_a_wave_that_does_not_fit_says_how_much_is_missing_and_what_fits() -> None:
    model, training = SIZES["nano-1M"], TrainingConfig(tokens=10**6)
    each = bytes_per_model(model, training)
    free = 5 * each + 8 * 2**20
    assert largest_wave(model, training, "cpu", free) == 5
    check_fits(model, training, 5, "cpu", free)
    with pytest.raises(NotEnoughMemory, match="5 fit") as caught:
        check_fits(model, training, 8, "cpu", free)
    assert caught.value.largest == 5
    assert 2 * each < caught.value.missing_bytes < 3 * each
    with pytest.raises(NotEnoughMemory, match="not even one"):
        check_fits(model, training, 1, "cpu", each // 2)


def test_the_memory_estimate_covers_what_a_step_keeps_and_not_much_more() -> None:
    for name in ("nano-0.1M", "nano-2M"):
        model = SIZES[name].with_vocabulary(512)
        training = TrainingConfig(tokens=10**5, sequence_length=64, batch_rows=16)
        stack = StackedDecoder(model, [0, 1])
        kept: dict[int, int] = {}

        def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        tokens = torch.zeros(2, 16, 64, dtype=torch.int64)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            losses = stack.losses_and_gradients(tokens, tokens, stack.parts(torch.empty_like(stack.values)))
        kept.pop(stack.values.untyped_storage().data_ptr(), None)
        estimated = bytes_per_model(model, training) - 4 * (BUFFERS - 1) * model.parameters
        assert losses.shape == (2,)
        assert sum(kept.values()) / 2 <= estimated <= 2 * sum(kept.values()) / 2
