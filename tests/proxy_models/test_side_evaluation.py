"""Evaluations on a borrowed device: the numbers of evaluations here, whatever is killed, stopped or taken back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from proxy_models.backends.backend import ONE_BY_ONE, STACKED
from proxy_models.errors import Cancelled, Diverged, Stopped
from proxy_models.evaluation.evaluator_handle import Evaluator
from proxy_models.evaluation.evaluator_order import tasks_from_json, tasks_to_json
from proxy_models.evaluation.lending import Lending, Loan
from proxy_models.evaluation.side_evaluation import Evaluations
from proxy_models.training import checkpoint
from proxy_models.training import run as run_module
from proxy_models.training import wave as wave_module
from proxy_models.training.checkpoint import Checkpoint
from proxy_models.training.run import RunSpec, train_run
from proxy_models.training.run_inputs import scored_tasks
from proxy_models.training.wave import WaveOptions, train_wave
from tests.proxy_models.test_families import FAMILIES, numbers

ROOT = Path(__file__).parents[2]


CHILD = """
import json, os, signal, sys
from proxy_models.evaluation.evaluator_handle import Evaluator
from proxy_models.evaluation.lending import Lending
from proxy_models.training.run import RunSpec, train_run
from proxy_models.training.wave import WaveOptions, train_wave
from tests.proxy_models.test_side_evaluation import Neighbour

send = Evaluator.send

def send_and_halt(self, *snapshot):
    send(self, *snapshot)
    os.kill(self.pid, signal.SIGSTOP)
    print(self.pid, flush=True)

Evaluator.send = send_and_halt
runs = [RunSpec.from_dict(one) for one in json.loads(sys.argv[1])]
lending = Lending(Neighbour(), 0.0)
train_wave(runs, WaveOptions(lending=lending)) if len(runs) > 1 else train_run(runs[0], lending=lending)
"""


class Neighbour:
    """Has one idle device; knows what became of it."""

    def __init__(self) -> None:
        self.borrowed = 0
        self.lent = self.wants_it_back = False
        self.device = "cpu"

    def borrow(self) -> Loan | None:
        if self.lent or self.wants_it_back:
            return None
        self.borrowed += 1
        self.lent = True
        return self

    def wanted(self) -> bool:
        return self.wants_it_back

    def close(self) -> None:
        self.lent = False


@pytest.fixture
def neighbour() -> Neighbour:
    return Neighbour()


@pytest.fixture
def lending(neighbour: Neighbour) -> Lending:
    """Lends for however little it is worth."""
    return Lending(neighbour, 0.0)


@pytest.fixture
def spec(spec_json: dict) -> RunSpec:
    training = {**spec_json["training"], "tokens": 15_000}
    task = spec_json["tasks"][0]
    choices = Path(task["path"]).with_name("choices.jsonl")
    questions = [
        {"context": "import", "choices": [" os\n", " sys\n", " sqrt\n"], "gold": 0},
        {"context": "def f(self):\n    return", "choices": [" self\n", " import\n"], "gold": 0},
    ]
    choices.write_text("".join(json.dumps(question) + "\n" for question in questions))
    ranked = {"name": "words", "path": str(choices), "measure": {"metric": "accuracy"}}
    return RunSpec.from_dict({**spec_json, "training": training, "tasks": [task, ranked]})


@pytest.fixture
def runs(spec: RunSpec) -> list[RunSpec]:
    """Three runs of one shape."""
    return [
        replace(
            spec,
            directory=spec.directory.with_name(f"wave-{seed}"),
            training=replace(spec.training, seed=seed, learning_rate=2e-3 * (seed + 1)),
        )
        for seed in range(3)
    ]


def elsewhere(spec: RunSpec) -> RunSpec:
    return replace(spec, directory=spec.directory.with_name(f"{spec.directory.name}-elsewhere"))


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def waiting_for_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no evaluation is due while another is out: which one that happens to is the machine's affair."""
    monkeypatch.setattr(Evaluations, "poll", Evaluations.settle)


def evaluated_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks and slices that are evaluated in this process from now on."""
    from proxy_models.evaluation import scores as evaluation

    names: list[str] = []
    original = evaluation._evaluate

    def noted(token_nats: Any, members: int, tasks: Any, device: str) -> Any:
        names.extend(tasks)
        return original(token_nats, members, tasks, device)

    monkeypatch.setattr(evaluation, "_evaluate", noted)
    return names


def slices(spec: RunSpec) -> list[str]:
    return [f"held-out/{name}" for name in sorted(spec.shards)]


def test_a_run_whose_tasks_are_evaluated_elsewhere_has_the_same_numbers_to_the_last_bit(
    spec: RunSpec, neighbour: Neighbour, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(train_run(elsewhere(spec)))
    before = children()
    waiting_for_every_answer(monkeypatch)
    here = evaluated_here(monkeypatch)
    assert numbers(train_run(spec, lending=lending)) == expected
    assert here == slices(spec), "a task was evaluated here although a device was lent"
    assert (neighbour.borrowed, neighbour.lent) == (1, False)
    assert children() == before
    assert sorted(path.name for path in spec.directory.iterdir()) == ["model", "result.json"]


@pytest.mark.parametrize("backend", [ONE_BY_ONE, STACKED])
def test_a_wave_whose_tasks_are_evaluated_elsewhere_has_the_same_numbers_to_the_last_bit(
    runs: list[RunSpec], lending: Lending, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    expected = train_wave([elsewhere(run) for run in runs], WaveOptions(backend))
    waiting_for_every_answer(monkeypatch)
    here = evaluated_here(monkeypatch)
    found = train_wave(runs, WaveOptions(backend, lending=lending))
    assert set(here) == set(slices(runs[0]))
    assert [numbers(one) for one in found] == [numbers(one) for one in expected]


def test_a_model_of_transformers_is_evaluated_elsewhere_with_the_same_numbers_too(
    spec: RunSpec, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(spec.training, tokens=3000, evaluations=1)
    spec = replace(spec, size=None, architecture=FAMILIES["olmoe"], training=training)
    expected = numbers(train_run(elsewhere(spec)))
    here = evaluated_here(monkeypatch)
    assert numbers(train_run(spec, lending=lending)) == expected
    assert here == slices(spec)


def test_of_evaluations_that_overlap_every_one_is_made_and_kept_in_the_order_of_steps(
    spec: RunSpec, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(train_run(elsewhere(spec)))
    monkeypatch.setattr(Evaluations, "poll", lambda self: None)  # the first is out until the end
    here = evaluated_here(monkeypatch)
    assert numbers(train_run(spec, lending=lending)) == expected
    assert here == ["code", "words", "code", "words", *slices(spec)]


def after_every_snapshot(monkeypatch: pytest.MonkeyPatch, do: Callable[[Evaluator], object]) -> list[int]:
    """Do something to the evaluator as soon as it has one; answers the steps of those snapshots."""
    original, steps = Evaluator.send, []

    def send(self: Evaluator, step: int, *rest: Any) -> None:
        original(self, step, *rest)
        steps.append(step)
        do(self)

    monkeypatch.setattr(Evaluator, "send", send)
    return steps


def halt(evaluator: Evaluator) -> None:
    os.kill(evaluator.pid, signal.SIGSTOP)


def kill(evaluator: Evaluator) -> None:
    os.kill(evaluator.pid, signal.SIGKILL)


@pytest.mark.parametrize("noticed", ["at once", "at the end"])
def test_a_killed_evaluator_costs_no_measurement(
    runs: list[RunSpec],
    neighbour: Neighbour,
    lending: Lending,
    monkeypatch: pytest.MonkeyPatch,
    noticed: str,
) -> None:
    expected = train_wave([elsewhere(run) for run in runs])
    alone = numbers(train_run(replace(runs[0], directory=runs[0].directory.with_name("alone"))))
    steps = after_every_snapshot(monkeypatch, kill)
    if noticed == "at once":
        waiting_for_every_answer(monkeypatch)
    else:  # by then the models have moved on from their snapshot
        monkeypatch.setattr(Evaluations, "poll", lambda self: None)
    found = train_wave(runs, WaveOptions(lending=lending))
    assert [numbers(one) for one in found] == [numbers(one) for one in expected]
    assert (
        numbers(
            train_run(
                elsewhere(replace(runs[0], directory=runs[0].directory.with_name("one"))), lending=lending
            )
        )
        == alone
    )
    assert steps == [runs[0].training.evaluation_steps()[0]] * 2, "it was tried again"
    assert (neighbour.borrowed, neighbour.lent) == (2, False)


def test_an_evaluator_that_cannot_start_costs_no_measurement(
    spec: RunSpec, neighbour: Neighbour, lending: Lending
) -> None:
    neighbour.device = "cuda:0"  # there is none, or one that rounds otherwise than the processor that trains
    expected = numbers(train_run(elsewhere(spec)))
    assert numbers(train_run(spec, lending=lending)) == expected
    assert (neighbour.borrowed, neighbour.lent) == (1, False)


@pytest.mark.parametrize("together", [1, 3])
def test_training_killed_with_an_evaluation_pending_goes_on_to_the_same_numbers(
    runs: list[RunSpec], together: int
) -> None:
    runs = [replace(run, checkpoint_seconds=0.05) for run in runs[:together]]
    expected = train_all([elsewhere(run) for run in runs])
    order = json.dumps([run.to_dict() for run in runs])
    child = subprocess.Popen([sys.executable, "-c", CHILD, order], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    evaluator = psutil.Process(int(child.stdout.readline()))
    child.kill()
    child.communicate()
    evaluator.resume()
    _, alive = psutil.wait_procs([evaluator], timeout=60)
    assert not alive, "an evaluator outlived the training it belongs to"
    assert not (runs[0].directory / "result.json").exists()
    assert {path.name for path in runs[0].directory.iterdir()} <= {"checkpoints"}
    assert [numbers(one) for one in train_all(runs)] == [numbers(one) for one in expected]


def train_all(runs: list[RunSpec]) -> Sequence[object]:
    return train_wave(runs) if len(runs) > 1 else [train_run(runs[0])]


def test_every_checkpoint_holds_every_measurement_up_to_its_step(
    spec: RunSpec, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "CHECKPOINT_SHARE", 1e9)
    spec = replace(spec, checkpoint_seconds=0.0)
    states: dict[int, Any] = {}
    original = checkpoint.add_checkpoint

    def kept(directory: Path, found: Checkpoint) -> Path:
        states[found.step] = found.state
        return original(directory, found)

    monkeypatch.setattr(checkpoint, "add_checkpoint", kept)
    train_run(spec, lending=lending)
    last = spec.training.steps
    assert list(states) == list(range(1, last))
    for step, state in states.items():
        due = [one for one in spec.training.evaluation_steps() if one <= step]
        assert [metric["step"] for metric in state["metrics"] if metric["task"] == "code"] == due


def test_training_that_is_stopped_with_an_evaluation_pending_keeps_it_and_leaves_nothing_behind(
    spec: RunSpec, neighbour: Neighbour, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(train_run(elsewhere(spec)))
    before = children()
    sent = after_every_snapshot(monkeypatch, lambda _: None)
    with pytest.raises(Stopped) as caught:
        train_run(spec, stopping=lambda: bool(sent), lending=lending)
    assert caught.value.step == sent[0]
    assert not neighbour.lent
    assert children() == before
    assert [path.name for path in spec.directory.iterdir()] == ["checkpoints"]
    assert numbers(train_run(spec)) == expected


def test_a_cancelled_wave_waits_for_no_evaluation(
    runs: list[RunSpec], neighbour: Neighbour, lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    monkeypatch.setattr(wave_module, "PROGRESS_SECONDS", 0.0)
    sent = after_every_snapshot(monkeypatch, halt)
    found = train_wave(runs, WaveOptions(lending=lending, cancelled=lambda _: bool(sent)))
    assert [type(one) for one in found] == [Cancelled] * 3
    assert not neighbour.lent
    assert children() == before


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_a_device_that_is_wanted_back_is_given_back_and_evaluation_goes_on_here(
    spec: RunSpec,
    neighbour: Neighbour,
    lending: Lending,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    device: str,
) -> None:
    """``cpu:0`` stands for an accelerator, which an evaluation under way may not keep."""
    expected = numbers(train_run(elsewhere(spec)))
    neighbour.device = device

    def want(evaluator: Evaluator) -> None:
        neighbour.wants_it_back = True
        if device != "cpu":
            halt(evaluator)  # it will not answer: who waits for it waits for ever

    sent = after_every_snapshot(monkeypatch, want)
    waiting_for_every_answer(monkeypatch)
    assert numbers(train_run(spec, lending=lending)) == expected
    assert sent == [spec.training.evaluation_steps()[0]]
    assert not neighbour.lent
    assert "failed" not in caplog.text, "it was waited for until it was taken for dead"


def test_a_model_that_an_evaluation_elsewhere_finds_diverged_fails_and_no_other(
    runs: list[RunSpec], lending: Lending, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = runs[0].training.steps
    fine = numbers(train_wave([elsewhere(run) for run in runs])[1])
    kind = wave_module._Wave
    original = kind.step

    def poisoned(self: Any) -> tuple[float, ...]:
        losses = original(self)
        if self.steps_done == last:  # no step follows that would find it first
            self.backend.parameters(0)["final_norm"].fill_(float("nan"))
        return losses

    monkeypatch.setattr(kind, "step", poisoned)
    waiting_for_every_answer(monkeypatch)
    here = evaluated_here(monkeypatch)
    found = train_wave(runs, WaveOptions(lending=lending))
    assert set(here) == set(slices(runs[0]))
    assert isinstance(found[0], Diverged)
    assert found[0].step == last
    assert numbers(found[1]) == fine
    assert not (runs[0].directory / "result.json").exists()


def test_no_device_is_borrowed_for_what_is_done_here_sooner(spec: RunSpec, neighbour: Neighbour) -> None:
    train_run(spec, lending=Lending(neighbour))
    assert neighbour.borrowed == 0


def test_an_evaluator_is_told_the_tasks_as_they_were_tokenized(spec: RunSpec) -> None:
    tasks = scored_tasks(spec)
    told = tasks_from_json(json.loads(json.dumps(tasks_to_json(tasks))))
    assert list(told) == list(tasks) == ["code", "words"]
    for name, task in tasks.items():
        assert told[name].windows == task.windows
        assert told[name].pooled == task.pooled
        np.testing.assert_array_equal(told[name].document_bytes, task.document_bytes, strict=True)
    ranking, expected = told["words"].ranking, tasks["words"].ranking
    assert ranking is not None
    assert expected is not None
    assert ranking.measure == expected.measure
    for field in ("first", "gold", "lengths"):
        np.testing.assert_array_equal(getattr(ranking, field), getattr(expected, field), strict=True)
