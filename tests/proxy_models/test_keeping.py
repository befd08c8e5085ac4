"""What a full run measures and keeps on the way, and that none of its numbers depends on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from proxy_models.average import average_models
from proxy_models.errors import DataMissing, InvalidSpec, Stopped
from proxy_models.evaluation import evaluate
from proxy_models.model.model import Decoder
from proxy_models.training import wave
from proxy_models.training.run_inputs import open_shards, scored_slices, scored_tasks
from proxy_models.training.run_record import RunResult, checkpoint_steps
from proxy_models.training.run_spec import RunSpec
from proxy_models.training.wave import train_run
from tests.proxy_models.conftest import load_model

KEEPING = {"evaluate_every": 40, "models": True, "average": 3, "checkpoints": 2}


def train(spec_json: dict[str, Any], directory: Path, **changes: Any) -> RunResult:
    return train_run(RunSpec.from_dict({**spec_json, "directory": str(directory), **changes}))


def test_evaluations_on_the_way_move_no_number(spec_json: dict[str, Any], tmp_path: Path) -> None:
    plain = train(spec_json, tmp_path / "plain")
    kept = train(spec_json, tmp_path / "kept", keeping=KEEPING)
    assert (kept.final, kept.noise) == (plain.final, plain.noise)
    steps = 40_000 // 256
    late = set(range(40, steps, 40))
    assert {one.step for one in kept.metrics if one.task == "code"} == {
        *late,
        *(one.step for one in plain.metrics if one.task == "code"),
    }
    assert [one for one in kept.metrics if one.step not in late] == list(plain.metrics)
    first = load_file(tmp_path / "plain" / "model" / "model.safetensors")
    second = load_file(tmp_path / "kept" / "model" / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert plain.average == {}


def test_the_average_is_that_of_the_last_models_and_measured_as_such(
    spec_json: dict[str, Any], tmp_path: Path
) -> None:
    result = train(spec_json, tmp_path / "run", keeping=KEEPING)
    folders = sorted((tmp_path / "run" / "models").glob("step-*"))
    assert [int(folder.name[5:]) for folder in folders] == sorted(
        {one.step for one in result.metrics if one.task == "code"}
    )
    last = [load_file(folder / "model.safetensors") for folder in folders[-3:]]
    config, mean = load_model(tmp_path / "run" / "average")
    for name, tensor in mean.items():
        expected = torch.stack([one[name].double() for one in last]).mean(0).float()
        assert torch.equal(tensor, expected), name
    model = Decoder(config)
    model.load_state_dict(mean)
    spec = RunSpec.from_dict({**spec_json, "directory": str(tmp_path / "run"), "keeping": KEEPING})
    scored = {**scored_tasks(spec), **scored_slices(spec, open_shards(spec))}
    assert result.average == pytest.approx(evaluate(model, scored), rel=1e-6)
    assert result.average != result.final
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_models_are_kept_only_as_long_as_they_are_wanted(spec_json: dict[str, Any], tmp_path: Path) -> None:
    train(spec_json, tmp_path / "run", keeping={"evaluate_every": 40, "average": 2})
    assert len(list((tmp_path / "run" / "models").glob("step-*"))) == 2


def test_as_many_checkpoints_are_kept_as_are_asked_for_and_a_run_goes_on_from_the_newest(
    spec_json: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wave, "CHECKPOINT_SHARE", 1e9)
    spec = {
        **spec_json,
        "checkpoint_seconds": 0.0,
        "keeping": {"checkpoints": 3, "average": 2, "evaluate_every": 10},
    }
    undisturbed = train(spec, tmp_path / "undisturbed")
    steps = iter(range(10**6))
    with pytest.raises(Stopped):
        train_run(
            RunSpec.from_dict({**spec, "directory": str(tmp_path / "run")}),
            stopping=lambda: next(steps) > 25,
        )
    assert sorted(checkpoint_steps(tmp_path / "run" / "checkpoints")) == [23, 24, 25]
    again = train(spec, tmp_path / "run")
    assert (again.final, again.average) == (undisturbed.final, undisturbed.average)
    assert again.metrics == undisturbed.metrics


def test_without_tasks_the_held_out_slices_are_measured_on_the_way(
    spec_json: dict[str, Any], tmp_path: Path
) -> None:
    result = train(spec_json, tmp_path / "run", tasks=[], keeping={"evaluate_every": 50})
    assert {one.step for one in result.metrics if one.task == "held-out/code:web"} == {50, 100, 150, 156}


@pytest.mark.parametrize(
    ("keeping", "field"),
    [
        ({"evaluate_every": 0}, "keeping.evaluate_every"),
        ({"checkpoints": 0}, "keeping.checkpoints"),
        ({"average": -1}, "keeping.average"),
        ({"every": 1}, "keeping.every"),
    ],
)
def test_what_cannot_be_kept_is_named(spec_json: dict[str, Any], keeping: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        RunSpec.from_dict({**spec_json, "keeping": keeping})
    assert error.value.field == field


def saved(folder: Path, **tensors: torch.Tensor) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": folder.name}))
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_models_of_several_runs_are_averaged_with_what_goes_with_the_last(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    values = [torch.from_numpy(draws.normal(size=(3, 5)).astype(np.float32)) for _ in range(4)]
    folders = [saved(tmp_path / str(number), weight=value) for number, value in enumerate(values)]
    average_models(folders, tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "model.safetensors")["weight"]
    assert torch.equal(mean, torch.stack(values).double().mean(0).float())
    assert json.loads((tmp_path / "mean" / "config.json").read_text()) == {"name": "3"}


def test_models_that_are_not_alike_have_no_mean(tmp_path: Path) -> None:
    one = saved(tmp_path / "one", weight=torch.zeros(2, 3))
    for other, reason in (
        (saved(tmp_path / "wide", weight=torch.zeros(2, 4)), r"\(2, 3\) in .*one and \(2, 4\) in .*wide"),
        (
            saved(tmp_path / "more", weight=torch.zeros(2, 3), bias=torch.zeros(1)),
            "bias is a tensor of only one",
        ),
    ):
        with pytest.raises(InvalidSpec, match=reason):
            average_models([one, other], tmp_path / "mean")
    rounded = saved(tmp_path / "rounded", weight=torch.zeros(2, 3, dtype=torch.bfloat16))
    for broken in (tmp_path, rounded):
        with pytest.raises(DataMissing):
            average_models([broken, broken], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
