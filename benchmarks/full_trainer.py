"""The full trainer beside the Hugging Face Trainer and a plain loop, and on two processes beside one.

    python -m benchmarks.full_trainer --json FILE

- `sizes`: tokens per second on one thread of one process, and its peak memory, at sizes from nano to 60M: our
  trainer, Llama of transformers in its own `Trainer` (which needs the package accelerate), and a plain loop over
  PyTorch's own modules (`plain_models`). Each has a process of its own; they take turns, and medians count.
- `two_processes`: our trainer by torchrun on two processes of one thread, DDP and FSDP2, beside one process on the
  whole batch. `loss_difference` is the largest over the steps in nats, `share_lost` what two processes are slower
  than twice one: it counts what they take from each other as well, on a machine of two cores mostly that.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.plain_models import plain_step
from benchmarks.trainer import describe
from proxy_models.config import TrainingConfig, size_named
from proxy_models.training.distributed import Distributed, Engine
from proxy_models.training.processes import joined
from proxy_models.training.step import Learner, keep_freed_memory

VOCABULARY, LENGTH = 4096, 128
SIZES = {"nano-0.1M": (8, 40), "nano-1M": (8, 24), "mini-8M": (8, 8), "mini-60M": (4, 4)}
"""Rows and steps of each."""
OURS, TRAINER, PLAIN = "mixwright", "hugging face trainer", "plain loop"
WARM_UP = 2


def training_of(size: str) -> TrainingConfig:
    """Steps as the table says, and those that warm up."""
    rows, steps = SIZES[size]
    return TrainingConfig((steps + WARM_UP) * rows * LENGTH, sequence_length=LENGTH, batch_rows=rows)


def batches(training: TrainingConfig) -> list[np.ndarray]:
    """(rows, T + 1) each."""
    draws = np.random.default_rng(0)
    shape = (training.batch_rows, LENGTH + 1)
    return [draws.integers(0, VOCABULARY, shape) for _ in range(training.steps)]


def timed(step: Callable[[np.ndarray], object], training: TrainingConfig) -> list[float]:
    """Seconds of each step."""
    seconds = []
    for batch in batches(training):
        began = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - began)
    return seconds


def by_the_trainer(size: str, training: TrainingConfig) -> list[float]:
    """Seconds of each step of ``transformers.Trainer``, from the end of one to the end of the next."""
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    shape = size_named(size, VOCABULARY)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.width,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    ended = [time.perf_counter()]

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.append(time.perf_counter())

    rows = [torch.from_numpy(row[:-1].copy()) for batch in batches(training) for row in batch]
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            per_device_train_batch_size=training.batch_rows,
            max_steps=training.steps,
            max_grad_norm=training.clip,
            weight_decay=training.weight_decay,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        data: Any = [{"input_ids": row, "labels": row} for row in rows]
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()
    return np.diff(ended).tolist()


def contestant(name: str, size: str) -> dict[str, float]:
    """What this process measures of one of them."""
    torch.set_num_threads(1)
    training, shape = training_of(size), size_named(size, VOCABULARY)
    if name == OURS:
        keep_freed_memory()
        learner = Learner(shape, training)
        seconds = timed(lambda batch: learner.learn(batch[None], [1e-3]), training)
    elif name == PLAIN:
        seconds = timed(plain_step(shape, training, "cpu"), training)
    else:
        seconds = by_the_trainer(size, training)
    step = statistics.median(seconds[WARM_UP:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens_per_second": training.tokens_per_step / step, "peak_bytes": peak}


def one_of(size: str, sharding: str) -> dict[str, Any]:
    """What one of the processes measures, on its share of the rows."""
    torch.set_num_threads(1)
    keep_freed_memory()
    training = training_of(size)
    with joined("cpu") as (processes, device):
        engine: Any = Engine(processes, sharding)  # pyright: ignore[reportArgumentType]
        backend = Distributed(size_named(size, VOCABULARY), training, engine, device)
        own, losses = processes.rows(training.batch_rows), []
        seconds = timed(
            lambda batch: losses.append(backend.learn(batch[None, own], [1e-3]).losses[0]), training
        )
        if not processes.is_first:
            return {}
    step = statistics.median(seconds[WARM_UP:])
    return {"tokens_per_second": training.tokens_per_step / step, "losses": losses}


def run(*arguments: str, processes: int = 0) -> dict[str, Any]:
    """Another process of this module, or as many by torchrun; answers what it prints."""
    by_torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")
    command = [
        sys.executable,
        *(by_torchrun if processes else ()),
        "-m",
        "benchmarks.full_trainer",
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def measure(repeats: int, sizes: list[str], two_at: str) -> dict[str, Any]:
    """Everything; contestants take turns."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for _ in range(repeats):
        for size in sizes:
            for name in (OURS, TRAINER, PLAIN):
                one = run("--contestant", name, "--size", size)
                found.setdefault(size, {}).setdefault(name, []).append(one)
    told = {
        size: {
            name: {key: statistics.median(one[key] for one in turns) for key in turns[0]}
            for name, turns in contestants.items()
        }
        for size, contestants in found.items()
    }
    for contestants in told.values():
        for name, key in ((TRAINER, "ratio_to_hugging_face_trainer"), (PLAIN, "ratio_to_plain_loop")):
            ours, theirs = contestants[OURS], contestants[name]
            contestants[OURS][key] = ours["tokens_per_second"] / theirs["tokens_per_second"]
    shared = {}
    for sharding in ("ddp", "fsdp"):
        turns = [
            [run("--share", sharding, "--size", two_at, processes=count) for count in (1, 2)]
            for _ in range(repeats)
        ]
        one, two = ([turn[at] for turn in turns] for at in (0, 1))
        rates = [statistics.median(turn["tokens_per_second"] for turn in these) for these in (one, two)]
        differences = np.abs(np.subtract(one[0]["losses"], two[0]["losses"]))
        shared[sharding] = {
            "size": two_at,
            "loss_difference": float(differences.max()),
            "share_lost": 1 - rates[1] / (2 * rates[0]),
            "tokens_per_second": rates,
        }
    first = told[sizes[0]][OURS]
    return {
        "default": {
            "ratio_to_hugging_face_trainer": first["ratio_to_hugging_face_trainer"],
            "ratio_to_plain_loop": first["ratio_to_plain_loop"],
            "two_processes": shared,
        },
        "sizes": told,
    }


def main() -> None:
    """Measure, or be one of the measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--two-at", default="nano-1M", choices=list(SIZES))
    parser.add_argument("--contestant", choices=(OURS, TRAINER, PLAIN), help=argparse.SUPPRESS)
    parser.add_argument("--share", choices=("ddp", "fsdp"), help=argparse.SUPPRESS)
    parser.add_argument("--size", choices=list(SIZES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(contestant(arguments.contestant, arguments.size)))
    elif arguments.share:
        if told := one_of(arguments.size, arguments.share):
            print(json.dumps(told))
    else:
        result = {
            "measured_on": describe("cpu"),
            **measure(arguments.repeats, arguments.sizes, arguments.two_at),
        }
        print(json.dumps(result, indent=1))
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
