"""Tokens per second that a wave's sampler draws, and its share of a step: ``python -m benchmarks.sampler``.

CPU time of one thread, medians of interleaved repeats. 16 samplers of 8 rows of 128 tokens over memory-mapped shards
draw batches of (16, 8, 129) int64, as `wave.train_wave` has them:

- `wave`: `WaveSampler`; `single samplers`: ``np.stack`` of the 16 samplers' own batches. `wave from nothing`: 1024
  steps of new samplers, the order of every domain's whole epoch drawn among them.
- `plain gather`: one NumPy index that reads as many rows at random places of one array in memory, and widens them:
  nothing is planned and no domain is told from another. `copy`: memory copied, as many bytes as a batch has.
- `training step`: the stacked step of 16 models of nano-0.1M that the batch is for.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trainer import describe
from proxy_models.training.mixture_sampler import MixtureSampler, SamplerSpec, WaveSampler

MODELS, ROWS, LENGTH = 16, 8, 128
TOKENS = MODELS * ROWS * LENGTH
STEPS = 1024
GOAL = 70e6


def samplers(directory: Path, domains: int) -> list[MixtureSampler]:
    """One for each model: a Dirichlet mixture of domains of 0.1 to 2 million tokens."""
    generator = np.random.default_rng(0)
    tokens: dict[str, np.ndarray] = {}
    for domain in range(domains):
        path = directory / f"{domain}.bin"
        generator.integers(0, 4096, generator.integers(100_000, 2_000_000)).astype("<u2").tofile(path)
        tokens[f"d{domain:04}"] = np.memmap(path, "<u2", mode="r")
    drawn = generator.dirichlet(np.ones(domains), MODELS)
    return [
        MixtureSampler(SamplerSpec(tokens, dict(zip(tokens, weights, strict=True)), STEPS, ROWS, LENGTH, 0))
        for weights in drawn
    ]


def contestants(directory: Path, domains: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (steps, a call that draws the batches of that many)."""
    members = samplers(directory, domains)
    generator = np.random.default_rng(1)
    text = generator.integers(0, 4096, 20_000_000).astype("<u2")
    places = generator.integers(0, len(text) - LENGTH - 1, (STEPS, MODELS, ROWS))
    windows = np.lib.stride_tricks.sliding_window_view(text, LENGTH + 1)
    batch, source = (np.zeros((MODELS, ROWS, LENGTH + 1), np.int64) for _ in range(2))

    def wave(members: list[MixtureSampler] = members) -> None:
        drawn = WaveSampler(members)
        for step in range(STEPS):
            drawn.batch(step)

    def single() -> None:
        for step in range(STEPS // 8):
            np.stack([sampler.batch(step) for sampler in members])

    def gather() -> None:
        for step in places:
            batch[:] = windows[step]

    def copy() -> None:
        for _ in range(STEPS):
            np.copyto(batch, source)

    return {
        "wave": (STEPS, wave),
        "wave from nothing": (STEPS, lambda: wave([MixtureSampler(sampler.spec) for sampler in members])),
        "single samplers": (STEPS // 8, single),
        "plain gather": (STEPS, gather),
        "copy": (STEPS, copy),
    }


def medians(entrants: Mapping[str, tuple[int, Callable[[], object]]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of one step, by name, after a round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for repeat in range(repeats + 1):
        for name, (steps, call) in entrants.items():
            started = time.process_time()
            call()
            if repeat:
                times[name].append((time.process_time() - started) / steps)
    return {name: statistics.median(found) for name, found in times.items()}


def training_step_seconds(repeats: int) -> float:
    """CPU seconds of one step of the stack, without drawing its batch."""
    import torch

    from proxy_models.backends import build
    from proxy_models.config import TrainingConfig, size_named
    from proxy_models.training.step import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    training = TrainingConfig(tokens=ROWS * LENGTH * STEPS, sequence_length=LENGTH, batch_rows=ROWS)
    backend = build("stacked", size_named("nano-0.1M"), [training] * MODELS)
    batches = np.random.default_rng(0).zipf(1.2, (MODELS, ROWS, LENGTH + 1)) % 4096
    step = {"step": (1, lambda: backend.learn(batches, [1e-3] * MODELS))}
    return medians(step, repeats)["step"]


def report(seconds: dict[str, float], step_seconds: float) -> dict[str, Any]:
    """What is printed and written of one number of domains."""
    return {
        "tokens_per_cpu_second": {name: round(TOKENS / value) for name, value in seconds.items()},
        "goal_tokens_per_cpu_second": round(GOAL),
        "ratio_to_goal": round(TOKENS / seconds["wave"] / GOAL, 2),
        "ratio_to_single_samplers": round(seconds["single samplers"] / seconds["wave"], 1),
        "share_of_plain_gather": round(seconds["plain gather"] / seconds["wave"], 3),
        "share_of_training_step": round(seconds["wave"] / step_seconds, 6),
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--domains", nargs="+", type=int, default=[20, 3, 300])
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    step_seconds = training_step_seconds(arguments.repeats)
    cases: dict[str, Any] = {}
    result = {
        "measured_on": describe("cpu"),
        "training_step_cpu_milliseconds": round(step_seconds * 1e3, 1),
        "cases": cases,
    }
    for domains in arguments.domains:
        with tempfile.TemporaryDirectory() as directory:
            seconds = medians(contestants(Path(directory), domains), arguments.repeats)
        cases[f"{domains} domains"] = found = report(seconds, step_seconds)
        print(f"{domains} domains", json.dumps(found), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
