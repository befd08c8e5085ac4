"""One model trained by several processes: the numbers of one, whatever becomes of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from proxy_models.config import SIZES, TrainingConfig
from proxy_models.families.architecture import Architecture
from proxy_models.training.step import Learner

ROOT = Path(__file__).parents[2]
STEPS = 4
TRAINING = TrainingConfig(tokens=STEPS * 8 * 16, sequence_length=16, batch_rows=8, weight_decay=0.1, clip=0.3)
MODEL = SIZES["nano-0.1M"].with_vocabulary(256)
OLMOE = {
    "model_type": "olmoe", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2,
    "max_position_embeddings": 64, "router_aux_loss_coef": 0.0, "router_z_loss_coef": 0.0,
}  # fmt: skip

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
SHAPES = {"ours": MODEL, "olmoe": Architecture(OLMOE, 256), "tied": Architecture(LLAMA, 256)}

# The library multiplies experts in float32 at most.
DTYPES = {"ours": torch.float64, "olmoe": torch.float32, "tied": torch.float64}
NEAR = {"ours": 1e-12, "olmoe": 1e-5, "tied": 1e-12}
# Adam makes a whole step of a gradient near 0, either way.
PARAMETERS_NEAR = {"ours": 1e-12, "olmoe": 1e-2, "tied": 1e-10}

PROGRAM = """
import json, sys
import numpy as np, torch
from proxy_models.config import TrainingConfig
from proxy_models.training.distributed import Distributed, Engine
from proxy_models.training.processes import joined
from tests.proxy_models.test_distributed import DTYPES, SHAPES, TRAINING, batches

torch.set_num_threads(1)
order = json.loads(sys.argv[1])
with joined("cpu") as (processes, device):
    found = {}
    for name, (family, how) in order.items():
        engine = Engine(processes, **how)
        backend = Distributed(SHAPES[family], TRAINING, engine, device, DTYPES[family])
        initial = {name: value.clone() for name, value in backend.parameters().items()}
        own = processes.rows(TRAINING.batch_rows)
        learned = [backend.learn(batch[:, own], [1e-2]) for batch in batches()]
        parameters = backend.parameters()
        found[name] = {
            "losses": [step.losses[0] for step in learned],
            "norms": [step.norms[0] for step in learned],
            "initial": {name: value.flatten().tolist() for name, value in initial.items()},
            "parameters": {name: value.flatten().tolist() for name, value in parameters.items()},
        }
    if processes.is_first:
        print(json.dumps(found))
"""


def batches() -> list[np.ndarray]:
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, (1, 8, 17)) for _ in range(STEPS)]


def torchrun(processes: int, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], check=False, capture_output=True, text=True, cwd=ROOT, env=environment, **more
    )


WAYS = {
    "ddp": ("ours", {"sharding": "ddp"}),
    "fsdp": ("ours", {"sharding": "fsdp"}),
    "fsdp, two pieces, computed again": (
        "ours",
        {"sharding": "fsdp", "micro_batch_rows": 1, "recompute": True},
    ),
    "ddp, two pieces, computed again": (
        "ours",
        {"sharding": "ddp", "micro_batch_rows": 2, "recompute": True},
    ),
    "ddp, experts": ("olmoe", {"sharding": "ddp"}),
    "fsdp, compiled": ("ours", {"sharding": "fsdp", "compiled": True}),
    "ddp, compiled": ("ours", {"sharding": "ddp", "compiled": True}),
    "fsdp, tied": ("tied", {"sharding": "fsdp"}),
    "fsdp, experts": ("olmoe", {"sharding": "fsdp", "recompute": True}),
}


@pytest.mark.parametrize("processes", [2, 4])
def test_steps_of_several_processes_are_those_of_one(processes: int, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ways = {name: way for name, way in WAYS.items() if processes == 2 or "compiled" not in way[1]}
    ended = torchrun(processes, str(program), json.dumps(ways))
    assert ended.returncode == 0, ended.stderr[:4000]
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    for family, shape in SHAPES.items():
        alone = Learner(shape, TRAINING, "cpu", DTYPES[family])
        initial = {name: value.flatten().tolist() for name, value in alone.parameters().items()}
        learned = [alone.learn(batch, [1e-2]) for batch in batches()]
        for name in (name for name, (of, _) in ways.items() if of == family):
            theirs = found[name]
            losses, norms = ([getattr(step, of)[0] for step in learned] for of in ("losses", "norms"))
            assert theirs["initial"] == initial, f"{name}: to the bit"
            assert min(norms) > TRAINING.clip, "it was to be clipped"
            assert theirs["losses"] == pytest.approx(losses, rel=NEAR[family]), name
            assert theirs["norms"] == pytest.approx(norms, rel=10 * NEAR[family]), name
            for parameter, value in alone.parameters().items():
                difference = (
                    torch.tensor(theirs["parameters"][parameter], dtype=value.dtype) - value.flatten()
                )
                assert difference.norm() <= PARAMETERS_NEAR[family] * value.norm(), (name, parameter)


LONG = """
import json, sys
import numpy as np, torch
from proxy_models.config import SIZES, TrainingConfig
from proxy_models.training.distributed import Distributed, Engine
from proxy_models.training.processes import joined

torch.set_num_threads(1)
with joined("cpu") as (processes, device):
    training = TrainingConfig(tokens=2 * 2**15, sequence_length=2**15, batch_rows=2)
    engine = Engine(processes, "fsdp", recompute=True)
    backend = Distributed(SIZES["nano-0.1M"].with_vocabulary(256), training, engine, device)
    batch = np.random.default_rng(0).integers(0, 256, (1, 2, 2**15 + 1))
    learned = backend.learn(batch[:, processes.rows(2)], [1e-2])
    if processes.is_first:
        print(json.dumps([learned.losses[0], learned.norms[0]]))
"""


@pytest.mark.long
def test_rows_of_32k_tokens_are_those_of_one_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(LONG)
    said = []
    for processes in (1, 2):
        ended = torchrun(processes, str(program))
        assert ended.returncode == 0, ended.stderr[-3000:]
        said.append(json.loads(ended.stdout.strip().splitlines()[-1]))
    assert said[1] == pytest.approx(said[0], rel=1e-5)


def order_file(spec: dict[str, Any], directory: Path, **engine: Any) -> Path:
    path = directory.with_suffix(".json")
    run = {**spec, "directory": str(directory), "checkpoint_seconds": 0.0}
    path.write_text(json.dumps({"run": run, "engine": engine}))
    return path


def full_run(processes: int, order: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return torchrun(processes, "-m", "proxy_models.training.full_run", str(order), **more)


def measured(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "result.json").read_text())["result"]


@pytest.mark.parametrize("sharding", ["fsdp", pytest.param("ddp", marks=pytest.mark.long)])
def test_a_run_of_two_processes_goes_on_in_one_and_one_of_one_in_two(
    sharding: str, spec_json: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are anybody's: killed at 2 processes, continued in the loop of one, and the other way round."""
    from proxy_models.errors import Stopped
    from proxy_models.training import wave
    from proxy_models.training.run_record import checkpoint_steps
    from proxy_models.training.run_spec import RunSpec
    from proxy_models.training.wave import train_run

    monkeypatch.setattr(wave, "CHECKPOINT_SHARE", 1e9)
    spec = {**spec_json, "training": {**spec_json["training"], "tokens": 60_000}}
    undisturbed = train_run(RunSpec.from_dict({**spec, "directory": str(tmp_path / "undisturbed")}))

    two = tmp_path / "two"
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
         "proxy_models.training.full_run", str(order_file(spec, two, sharding=sharding))],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not list(two.glob("checkpoints/step-*")) and process.poll() is None:
        pass
    trainers = psutil.Process(process.pid).children(recursive=True)
    process.kill()  # torchrun alone: those it started end with it
    process.wait()
    _, alive = psutil.wait_procs(trainers, timeout=60)
    assert not alive
    assert not (two / "result.json").exists(), "it was to be killed on the way"
    assert min(checkpoint_steps(two / "checkpoints")) > 0
    written = {path.suffix for path in (two / "checkpoints").glob("step-*/*")}
    assert written == {".json", ".safetensors"}, "nothing that is run when it is read"
    continued = train_run(RunSpec.from_dict({**spec, "directory": str(two)}))

    one = tmp_path / "one"
    steps = iter(range(10**6))
    with pytest.raises(Stopped):
        train_run(RunSpec.from_dict({**spec, "directory": str(one)}), stopping=lambda: next(steps) > 7)
    ended = full_run(2, order_file(spec, one, sharding=sharding))
    assert ended.returncode == 0, ended.stderr[:7000]

    for final in (continued.final, measured(one)["final"]):
        assert final == pytest.approx(undisturbed.final, rel=1e-5)
    assert measured(one)["realised_tokens"] == continued.realised_tokens == undisturbed.realised_tokens
