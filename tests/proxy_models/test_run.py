import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from proxy_models.config import TrainingConfig
from proxy_models.errors import (
    DataMissing,
    Diverged,
    InvalidSpec,
    MissingDomain,
    OverCap,
    ProxyError,
    StorageFailed,
    UnknownDomain,
    UnknownSize,
)
from proxy_models.text.token_shard import TokenShard
from proxy_models.training import run_record
from proxy_models.training import wave as wave_module
from proxy_models.training.run_inputs import mixture_sampler, open_shards, peak_rate
from proxy_models.training.run_record import (
    Checkpoint,
    RunProgress,
    RunResult,
    add_checkpoint,
    checkpoint_steps,
    read_checkpoint,
)
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.step import Learned, Learner, learning_rate_at
from proxy_models.training.wave import train_run
from tests.proxy_models.conftest import Pool, load_model
from tests.proxy_models.test_families import numbers

ROOT = Path(__file__).parents[2]
RESUMED_BPB = 0.005
"""What docs/trainer.md says of accelerators, three times what another order of summation was seen to move."""
CHILD = (
    "import json, sys\n"
    "from proxy_models.training.run_spec import RunSpec\n"
    "from proxy_models.training.wave import train_run\n"
    "train_run(RunSpec.from_dict(json.load(open(sys.argv[1]))), "
    "lambda p: print(json.dumps(p.to_dict()), file=sys.stderr))\n"
)


def train(spec_json: dict, **changes: Any) -> RunResult:
    return train_run(RunSpec.from_dict({**spec_json, **changes}))


def unigram_bpb(shard: TokenShard) -> float:
    """BPB of the best model that knows how frequent each token is in the domain and nothing about context."""
    counts = np.bincount(shard.tokens, minlength=shard.meta.vocabulary_size) + 1
    bits = -np.log2(counts / counts.sum())
    documents = shard.held_out()
    return sum(bits[list(doc.tokens)].sum() for doc in documents) / sum(doc.size_bytes for doc in documents)


def test_a_run_learns_real_text_and_reports_itself(spec_json: dict, pool: Pool) -> None:
    seen: list[RunProgress] = []
    spec = RunSpec.from_dict(spec_json)
    result = train_run(spec, seen.append)
    names = {"code"} | {f"held-out/{name}" for name in pool.domains}
    assert set(result.final) == names
    for name, domain in pool.domains.items():
        assert result.final[f"held-out/{name}"] < unigram_bpb(TokenShard.open(domain.directory))
    steps = 40_000 // 256
    assert result.tokens == steps * 256 == sum(result.realised_tokens.values())
    for name, weight in spec.mixture.items():
        assert abs(result.realised_tokens[name] - weight * result.tokens) <= 64
    evaluated = [metric.step for metric in result.metrics if metric.task == "code"]
    assert evaluated == [steps - 16, steps - 8, steps]
    values = [metric.value for metric in result.metrics if metric.task == "code"]
    assert result.final["code"] == values[-1]
    assert result.noise == {"code": pytest.approx(np.std(values, ddof=1))}
    assert (seen[-1].done, seen[-1].total) == (result.tokens, result.tokens)
    assert seen[-1].to_dict()["unit"] == "tokens"
    config, parameters = load_model(result.model_path)
    assert sum(p.numel() for p in parameters.values()) == result.parameters == config.parameters
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_a_finished_run_is_returned_and_not_trained_again(
    spec_json: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {**spec_json, "training": {**spec_json["training"], "tokens": 2_000}}
    first = train(short)
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("trained again"))
    assert train(short) == first
    with pytest.raises(InvalidSpec, match="another run"):
        train(short, mixture={"code:email": 0.4, "code:numbers": 0.4, "code:web": 0.2})


def test_the_checkpoint_interval_moves_no_number_and_a_resumed_run_is_exact(spec_json: dict) -> None:
    short = {**spec_json, "training": {**spec_json["training"], "tokens": 15_000}}
    expected = numbers(train(short))

    for name, stops in (("late", [56]), ("early", [3, 20])):
        assert numbers(interrupted(short, name, stops)) == expected


def test_a_checkpoint_written_by_hand_as_it_always_was_goes_on_to_the_same_numbers(spec_json: dict) -> None:
    short = {**spec_json, "training": {**spec_json["training"], "tokens": 15_000}}
    expected = numbers(train(short))
    short["directory"] += "-begun"
    spec = RunSpec.from_dict(short)
    sampler, learner = mixture_sampler(spec, open_shards(spec)), Learner(spec.model, spec.training)
    for step in range(20):
        rate = learning_rate_at(step, spec.training, peak_rate(spec))
        learner.learn(sampler.batch(step)[None], [rate])
    tensors = {}
    for name, parameter in learner.model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        tensors[f"average.{name}"] = learner.optimizer.averages[name]
        tensors[f"square.{name}"] = learner.optimizer.squares[name]
    folder = spec.directory / "checkpoints" / "step-0000000020"
    folder.mkdir(parents=True)
    save_file(tensors, folder / "state.safetensors")
    state = {"fingerprint": spec.fingerprint(), "metrics": [], "seconds": 1e6}
    (folder / "state.json").write_text(json.dumps({"step": 20, "state": state}))
    result = train(short)
    assert numbers(result) == expected
    assert result.seconds > 1e6, "it was trained from the start"


def interrupted(spec_json: dict, name: str, stops: list[int]) -> RunResult:
    """The same run in a directory of its own, stopped after so many steps and begun again from its checkpoints."""
    other = {**spec_json, "directory": spec_json["directory"] + name, "checkpoint_seconds": 0.0}
    checkpoints = Path(other["directory"]) / "checkpoints"
    for stop in stops:
        train_until(other, stop)
        assert [path.name for path in checkpoints.iterdir()] == [f"step-{stop:010d}"]
    result = train(other)
    assert not checkpoints.exists()
    return result


def test_every_checkpoint_holds_every_measurement_up_to_its_step(
    spec_json: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
    spec_json["training"]["tokens"] = 40_000
    spec = RunSpec.from_dict({**spec_json, "checkpoint_seconds": 0.0})
    states: dict[int, Any] = {}
    original = run_record.add_checkpoint

    def kept(directory: Path, checkpoint: Checkpoint, *rest: Any) -> Path:
        states[checkpoint.step] = checkpoint.state
        return original(directory, checkpoint, *rest)

    monkeypatch.setattr(run_record, "add_checkpoint", kept)
    train_run(spec)
    assert list(states) == list(range(1, spec.training.steps))
    for step, state in states.items():
        due = [before for before in spec.training.evaluation_steps() if before <= step]
        assert [metric["step"] for metric in state["metrics"] if metric["task"] == "code"] == due


@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: nothing was resumed on one")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_an_accelerator_a_resumed_run_stays_within_the_stated_tolerance(
    spec_json: dict, precision: str
) -> None:
    training = {**spec_json["training"], "tokens": 15_000, "precision": precision}
    short = {**spec_json, "training": training, "device": "cuda"}
    expected, resumed = train(short), interrupted(short, "again", [3, 20])
    assert resumed.realised_tokens == expected.realised_tokens
    assert resumed.final == pytest.approx(expected.final, rel=0, abs=RESUMED_BPB)


class Stopped(Exception):
    """Stands for the end of a process between two steps."""


def train_until(spec_json: dict, stop: int) -> None:
    """Train, checkpointing after every step, and stop after ``stop`` steps."""
    original = Learner.learn

    def learn(self: Learner, *batch: Any) -> Learned:
        if self.optimizer.steps == stop:
            raise Stopped
        return original(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wave_module, "CHECKPOINT_SHARE", 1e9)
        patch.setattr(Learner, "learn", learn)
        with pytest.raises(Stopped):
            train(spec_json)


def test_a_run_killed_at_any_moment_gives_the_same_numbers(spec_json: dict, tmp_path: Path) -> None:
    expected = numbers(train(spec_json, directory=str(tmp_path / "undisturbed")))
    spec_file = tmp_path / "spec.json"
    spec_file.write_text(json.dumps({**spec_json, "checkpoint_seconds": 0.1}))
    checkpoints = Path(spec_json["directory"]) / "checkpoints"
    resumed_from = []
    for _ in range(2):
        before = sorted(checkpoints.glob("step-*"))
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(spec_file)], cwd=ROOT, stderr=subprocess.PIPE
        )
        while sorted(checkpoints.glob("step-*")) in ([], before) and child.poll() is None:
            pass  # until it has checkpointed further than the last one
        assert child.poll() is None, child.communicate()[1].decode()
        child.send_signal(signal.SIGKILL)
        child.communicate()
        resumed_from.append(max(path.name for path in checkpoints.glob("step-*")))
    assert resumed_from[0] < resumed_from[1]
    assert not (Path(spec_json["directory"]) / "result.json").exists()
    assert numbers(train(spec_json)) == expected


def test_a_diverged_run_says_where_and_is_not_retried(
    spec_json: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Learner.learn

    def poisoned(self: Learner, *batch: Any) -> Learned:
        if self.optimizer.steps == 5:
            with torch.no_grad():
                self.model.final_norm.fill_(float("nan"))
        return original(self, *batch)

    monkeypatch.setattr(Learner, "learn", poisoned)
    with pytest.raises(Diverged, match="step 6") as caught:
        train(spec_json)
    assert not caught.value.retryable
    assert not (Path(spec_json["directory"]) / "result.json").exists()


def test_a_full_disk_is_retryable_and_leaves_the_last_checkpoint(
    spec_json: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_state = {"weight": torch.ones(3)}
    checkpoint = Checkpoint(4, trainer_state, {"seconds": 1.0})
    add_checkpoint(tmp_path / "checkpoints", checkpoint)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxy_models.training.run_record.save_file", full)
    with pytest.raises(StorageFailed, match="No space left") as caught:
        add_checkpoint(tmp_path / "checkpoints", Checkpoint(8, trainer_state, {}))
    assert caught.value.retryable
    assert checkpoint_steps(tmp_path / "checkpoints") == {4}
    found = read_checkpoint(tmp_path / "checkpoints", 4)
    assert found.step == 4
    assert torch.equal(found.tensors["weight"], trainer_state["weight"])


def test_bad_orders_are_refused_before_training(
    spec_json: dict, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "learn", lambda *_: pytest.fail("trained"))
    training = spec_json["training"]
    cases: list[tuple[type[ProxyError], str, dict]] = [
        (UnknownSize, "'giant'", {"size": "giant"}),
        (InvalidSpec, "nothing is trained on 'mps'; give cpu or cuda", {"device": "mps"}),
        (InvalidSpec, "unknown setting sise", {"sise": "nano-0.1M"}),
        (InvalidSpec, r"unknown setting training\.rate", {"training": {**training, "rate": 1}}),
        (InvalidSpec, "tokens must be at least 1", {"training": {**training, "tokens": 0}}),
        (InvalidSpec, "less than one step of 256", {"training": {**training, "tokens": 100}}),
        (InvalidSpec, "learning_rate must be positive", {"training": {**training, "learning_rate": -1.0}}),
        (InvalidSpec, "smaller than the 512 ids", {"vocabulary_size": 400}),
        (UnknownDomain, "'web'", {"mixture": {**spec_json["mixture"], "web": 0.0}}),
        (MissingDomain, "'code:web'", {"mixture": {"code:email": 0.5, "code:numbers": 0.5}}),
        (OverCap, "'code:", {"max_epochs": 0.01}),
        (DataMissing, "gone", {"tasks": [{"name": "t", "path": str(tmp_path / "gone.jsonl")}]}),
        (
            DataMissing,
            "prepare the domain again",
            {"shards": {**spec_json["shards"], "code:web": str(tmp_path)}},
        ),
    ]
    for error, reason, changes in cases:
        with pytest.raises(error, match=reason) as caught:
            train(spec_json, **changes)
        assert not caught.value.retryable
    assert not Path(spec_json["directory"]).exists()


def test_a_spec_survives_json(spec_json: dict) -> None:
    spec = RunSpec.from_dict(spec_json)
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()
    moved = RunSpec.from_dict({**spec_json, "directory": "/elsewhere", "checkpoint_seconds": 1.0})
    assert moved.fingerprint() == spec.fingerprint()


def test_the_rate_warms_up_peaks_and_reaches_its_floor() -> None:
    config = TrainingConfig(
        tokens=100 * 8, sequence_length=8, batch_rows=1, warmup_fraction=0.1, floor_fraction=0.2
    )
    rates = [learning_rate_at(step, config, 1.0) for step in range(config.steps)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.2)
    assert np.allclose(np.diff(rates[10:]), -0.8 / 89)


def test_evaluations_are_spread_over_the_last_tenth() -> None:
    def steps(total: int, evaluations: int) -> tuple[int, ...]:
        return TrainingConfig(tokens=total * 1024, evaluations=evaluations).evaluation_steps()

    assert steps(400, 3) == (360, 380, 400)
    assert steps(400, 1) == (400,)
    assert steps(400, 5) == (360, 370, 380, 390, 400)
    assert set(steps(3, 3)) == {3}
