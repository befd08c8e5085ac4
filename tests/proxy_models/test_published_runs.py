"""What a machine that is lost has published of its runs is enough to end at the numbers it would have ended at."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy_models.errors import StoreUnreachable
from proxy_models.stores.artifact_store import ArtifactStore
from proxy_models.stores.current import using_store
from proxy_models.training import wave as wave_module
from proxy_models.training.run_record import RunRecord, RunResult
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.wave import train_run, train_wave
from tests.stores.conftest import objects_in

RUNS = ("r1", "r2")


@pytest.fixture(autouse=True)
def _a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wave_module, "CHECKPOINT_SHARE", float("inf"))


class SwitchedOff(BaseException):
    """The machine is gone; nothing of ours catches it."""


@pytest.fixture
def run(spec_json: dict[str, Any], tmp_path: Path) -> Callable[[str, str], RunSpec]:
    def on(machine: str, name: str) -> RunSpec:
        training = {**spec_json["training"], "tokens": 3072, "seed": RUNS.index(name)}
        directory = str(tmp_path / machine / "runs" / name)
        return RunSpec.from_dict(
            {
                **spec_json,
                "tasks": [],
                "training": training,
                "directory": directory,
                "checkpoint_seconds": 0.0,
            }
        )

    return on


@pytest.fixture
def store(tmp_path: Path) -> Callable[[str], ArtifactStore]:
    return lambda machine: ArtifactStore(f"file://{tmp_path / 'store'}", tmp_path / machine)


def switch_off_after(checkpoints: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is lost when so many checkpoints are written, before the older ones are removed."""
    left = [checkpoints]
    original = RunRecord.add_checkpoint

    def add(self: RunRecord, *arguments: Any) -> None:
        original(self, *arguments)
        left[0] -= 1
        if not left[0]:
            raise SwitchedOff

    monkeypatch.setattr(RunRecord, "add_checkpoint", add)


def numbers(result: Any) -> Any:
    assert isinstance(result, RunResult), result
    return result.metrics, result.final, result.realised_tokens


@pytest.mark.parametrize("checkpoints", [1, 5])
def test_a_wave_goes_on_on_another_machine(
    run: Callable[[str, str], RunSpec],
    store: Callable[[str], ArtifactStore],
    checkpoints: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [numbers(result) for result in train_wave([run("undisturbed", name) for name in RUNS])]
    with monkeypatch.context() as lost, using_store(store("a").to_dict()):
        switch_off_after(checkpoints, lost)
        with pytest.raises(SwitchedOff):
            train_wave([run("a", name) for name in RUNS])
    shutil.rmtree(store("a").directory)
    began: list[int] = []
    original = RunRecord.resume
    monkeypatch.setattr(RunRecord, "resume", lambda self, step: began.append(step) or original(self, step))
    with using_store(store("b").to_dict()):
        results = train_wave([run("b", name) for name in RUNS])
    assert [numbers(result) for result in results] == expected
    assert len(began) >= min(checkpoints, len(RUNS)), "it went on, and did not begin again"
    kept = {"/".join(name.split("/")[:3]) for name in objects_in(store("b"))}
    assert kept == {f"runs/{name}/{part}" for name in RUNS for part in ("model", "result.json")}


def test_a_damaged_checkpoint_is_left_out(
    run: Callable[[str, str], RunSpec], store: Callable[[str], ArtifactStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(train_run(run("undisturbed", "r1")))
    with monkeypatch.context() as lost, using_store(store("a").to_dict()):
        switch_off_after(3, lost)
        with pytest.raises(SwitchedOff):
            train_run(run("a", "r1"))
    newest = max(name for name in objects_in(store("a")) if name.endswith("state.safetensors"))
    file = Path(store("a").address.removeprefix("file://")) / newest
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with using_store(store("b").to_dict()):
        assert numbers(train_run(run("b", "r1"))) == expected


def test_a_store_that_is_away_stops_no_training_and_gets_the_result_later(
    run: Callable[[str, str], RunSpec], store: Callable[[str], ArtifactStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = numbers(train_run(run("undisturbed", "r1")))
    original, away = ArtifactStore.publish, []

    def publish(self: ArtifactStore, path: Path) -> None:
        away.append(path.name)
        raise StoreUnreachable(self.address, "away")

    with monkeypatch.context() as patch, using_store(store("a").to_dict(), patience=0.0):
        patch.setattr(ArtifactStore, "publish", publish)
        with pytest.raises(StoreUnreachable):  # retryable: the result is on this machine
            train_run(run("a", "r1"))
    assert [name for name in away if name.startswith("step-")], "checkpoints were tried"
    assert away[-1] == "model"
    assert objects_in(store("a")) == {}

    monkeypatch.setattr(RunRecord, "add_metrics", lambda *_: pytest.fail("nothing is trained again"))
    with using_store(store("a").to_dict()):
        assert numbers(train_run(run("a", "r1"))) == expected
    assert ArtifactStore.publish is original
    with using_store(store("b").to_dict()):
        assert numbers(train_run(run("b", "r1"))) == expected
