"""Tokens per second of training proxies, and how near that is to bare products: ``python -m benchmarks.trainer``.

For each size and tokens per step, medians of interleaved repeats on one thread, CPU time on a CPU. In float32, and
where the processor is made for it in bfloat16 too (`, bfloat16`: ours by `proxy_models.model.model`, the
others by
autocast):

- `hugging face`, `plain`: Llama of transformers, and a module of PyTorch's own parts, each in a plain loop
  (`plain_models`), with the memory allocator as it is; `..., kept memory`: with `keep_freed_memory`, which our runs
  call. They live in two processes that take turns, since the setting is the process's own.
- `one-by-one`, `stacked 4`, ...: our backends, by name and models.
- `matmul limit`: the bare products of a step, forward and backward, each at the better of oneDNN and MKL and at once,
  attention's left out. `share_of_matmul_limit` is the time of the limit of the same precision over a step's.
- `floor` (`benchmarks.floor`): those products and what no way to train leaves out besides: softmax of the logits,
  attention, clipping and update. `ratio_at_floor_...` is what a step of nothing else would reach.

Everything together takes less than 3 minutes on a CPU, a third of it compiling, which is done for the first case (and
all on a GPU): no case begins after ``--seconds``.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy_models.config import ModelConfig, TrainingConfig

DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {
        "steps": ["nano-0.1M:8", "nano-0.1M:2", "nano-0.5M:8", "nano-1M:8"],
        "length": 64,
        "stacks": [4, 16],
        "compiled": 1,
    },
    "cuda": {
        "steps": ["nano-1M:16", "regmix-1M:16:50304", "olmo-14M:16:100352", "nano-0.1M:16"],
        "length": 512,
        "stacks": [4, 16],
        "compiled": 4,
    },
}
"""What is measured where nothing else is said, the demo's size and step first; on a GPU steps of 8,192 tokens, the
published proxies with the vocabularies they were published with, rounded up to a multiple of 128."""
VOCABULARY = 4096
ROUNDED = ", bfloat16"
PRODUCTS = "matmul limit"
PARTS = (PRODUCTS, "floor: softmax", "floor: attention", "floor: update")
"""What no way to train in float32 leaves out."""
LIMITS = (PRODUCTS, PRODUCTS + ROUNDED)
ALLOCATORS = ("default", "kept")
PLAIN = ("hugging face", "plain")


@dataclass(frozen=True)
class Case:
    """A size at a batch; whether compiled ways are measured too."""

    size: str
    batch_rows: int
    device: str
    sequence_length: int = 64
    vocabulary: int = VOCABULARY
    compiled: bool = True

    @property
    def name(self) -> str:
        """How results call it."""
        vocabulary = "" if self.vocabulary == VOCABULARY else f", vocabulary {self.vocabulary}"
        return f"{self.size}, {self.tokens} tokens{vocabulary}"

    @property
    def tokens(self) -> int:
        """Tokens of one model's step."""
        return self.batch_rows * self.sequence_length


def contestants(
    case: Case, stacks: list[int], plain_only: bool
) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> (models, one step of all of them). Built inside the process that runs them."""
    import numpy as np
    import torch

    from benchmarks.floor import StepShape, floor, products
    from benchmarks.plain_models import llama_step, plain_step
    from proxy_models.backends import build
    from proxy_models.config import TrainingConfig, size_named

    model = size_named(case.size, case.vocabulary)
    training = TrainingConfig(
        tokens=1000 * case.tokens, sequence_length=case.sequence_length, batch_rows=case.batch_rows
    )
    # Zipf's law, as in text: which rows of the embedding are touched matters to the cache.
    shape = (max(stacks), case.batch_rows, case.sequence_length + 1)
    batches = np.random.default_rng(0).zipf(1.2, shape) % case.vocabulary
    entrants: dict[str, tuple[int, Callable[[], object]]] = {}
    for precision in precisions(case.device):
        rounded = replace(training, precision=precision)
        for name, make in (("hugging face", llama_step), ("plain", plain_step)):
            step = make(model, rounded, case.device)
            entrants[name + suffix(precision)] = (1, lambda step=step: step(batches[0]))
    if plain_only:  # what others allocate would change how the allocator treats these
        return entrants
    for name, models, precision in ways(case, model, training, stacks):
        trainings = [replace(training, seed=seed, precision=precision) for seed in range(models)]
        backend = build(name, model, trainings, case.device)
        label = (f"{name} {models}" if name.startswith("stacked") or models > 1 else name) + suffix(precision)
        entrants[label] = (
            models,
            lambda backend=backend, n=models: backend.learn(batches[:n], [1e-3] * n),
        )
    shape = StepShape(model, case.batch_rows, case.sequence_length, case.device)
    parts = floor(shape)
    if len(precisions(case.device)) > 1:
        parts[PRODUCTS + ROUNDED] = products(shape, torch.bfloat16)
    return entrants | {part: (1, call) for part, call in parts.items()}


def ways(
    case: Case, model: "ModelConfig", training: "TrainingConfig", stacks: list[int]
) -> Iterator[tuple[str, int, str]]:
    """Our backends that run here, how many models each trains, and in which precision."""
    from proxy_models.backends import COMPILED, GRAPH, ONE_BY_ONE, STACKED, STACKED_COMPILED, available
    from proxy_models.config import FLOAT32
    from proxy_models.planning.memory import largest_wave
    from proxy_models.torch_device import free_memory

    usable = available(case.device, case.compiled)
    fit = largest_wave(model, training, case.device, free_memory(case.device) // 4)  # all stay in memory
    stacks = [models for models in stacks if models <= fit]
    for precision in precisions(case.device):
        alone = [ONE_BY_ONE, COMPILED] if precision == FLOAT32 or case.device != "cpu" else [ONE_BY_ONE]
        yield from ((name, 1, precision) for name in alone if name in usable)
        for name, sizes in ((STACKED, stacks), (STACKED_COMPILED, stacks[:1]), (GRAPH, stacks)):
            yield from ((name, models, precision) for models in sizes if name in usable)


def precisions(device: str) -> list[str]:
    """Those that the device computes in by itself."""
    import torch

    from proxy_models.config import BFLOAT16, FLOAT32

    made_for_it = (
        device != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )
    return [FLOAT32, BFLOAT16] if made_for_it else [FLOAT32]


def suffix(precision: str) -> str:
    """What a name ends with."""
    return "" if precision == "float32" else ROUNDED


def serve(pipe: Connection, allocator: str) -> None:
    """A process of its own: prepares a case, then times what it is asked for."""
    import torch

    from benchmarks.floor import seconds_of
    from proxy_models.training.step import keep_freed_memory

    torch.set_num_threads(1)
    if allocator == "kept":
        keep_freed_memory()
    entrants: dict[str, tuple[int, Callable[[], object]]] = {}
    device = "cpu"
    while (order := pipe.recv()) is not None:
        if isinstance(order, str):
            models, step = entrants[order]
            times = max(1, 2 // models)
            pipe.send(seconds_of(step, times, device) / models)
            continue
        case, stacks = order
        entrants = {}  # the last case's memory, before this one's is asked for
        device, entrants = case.device, contestants(case, stacks, allocator == "default")
        for _, step in entrants.values():
            for _ in range(2):
                step()
        pipe.send(list(entrants))


def measure(pipes: dict[str, Connection], case: Case, stacks: list[int], repeats: int) -> dict[str, float]:
    """Median seconds of one model's step, by contestant."""
    lanes = [(kind, name) for kind, pipe in pipes.items() for name in _ask(pipe, (case, stacks))]
    times: dict[tuple[str, str], list[float]] = {lane: [] for lane in lanes}
    for _ in range(repeats):
        for kind, name in lanes:
            times[kind, name].append(_ask(pipes[kind], name))
    return {
        f"{name}, kept memory" if kind == "kept" and name.startswith(PLAIN) else name: statistics.median(
            found
        )
        for (kind, name), found in times.items()
    }


def _ask(pipe: Connection, order: object) -> Any:
    pipe.send(order)
    return pipe.recv()


def rows(case: Case, seconds: dict[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """What is printed and written of each contestant."""
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        limit = seconds[LIMITS[ROUNDED in name]]
        yield (
            name,
            {
                "milliseconds": round(value * 1e3, 3),
                "tokens_per_second": round(case.tokens / value),
                "share_of_matmul_limit": round(limit / value, 3),
            },
        )


def summary(seconds: dict[str, float]) -> dict[str, Any]:
    """Our fastest way beside the plain ones."""
    rivals = {name for name in seconds if name.startswith(PLAIN)} | set(PARTS) | set(LIMITS)
    rounded = {name for name in seconds if ROUNDED in name}
    best = min(seconds.keys() - rivals - rounded, key=seconds.__getitem__)
    lowest = sum(seconds[part] for part in PARTS)
    one = seconds["one-by-one"]
    found: dict[str, Any] = {}
    if rounded:
        lower = min(rounded - rivals, key=seconds.__getitem__)
        found["bfloat16"] = {
            "fastest": lower,
            **_ratios(seconds, lower, ROUNDED),
            "share_of_matmul_limit": round(seconds[LIMITS[1]] / seconds[lower], 3),
            "ratio_to_float32": round(seconds[best] / seconds[lower], 2),
            "ratio_to_plain_loop_in_float32": round(seconds["plain"] / seconds[lower], 2),
            "ratio_to_hugging_face_loop_in_float32": round(seconds["hugging face"] / seconds[lower], 2),
        }
    return {
        "fastest": best,
        **_ratios(seconds, best),
        "share_of_matmul_limit": round(seconds[PRODUCTS] / seconds[best], 3),
        "share_of_floor": round(lowest / seconds[best], 3),
        "ratio_at_floor_to_plain_loop": round(seconds["plain"] / lowest, 2),
        "ratio_at_floor_to_hugging_face_loop": round(seconds["hugging face"] / lowest, 2),
        "one_by_one_ratio_to_plain_loop": round(seconds["plain"] / one, 2),
        "ratio_to_one_by_one": round(one / seconds[best], 2),
        **found,
    }


def _ratios(seconds: dict[str, float], mine: str, rounded: str = "") -> dict[str, float]:
    return {
        f"ratio_to_{name}_loop{suffix}": round(seconds[label + rounded + key] / seconds[mine], 2)
        for name, label in (("plain", "plain"), ("hugging_face", "hugging face"))
        for suffix, key in (("", ""), ("_with_kept_memory", ", kept memory"))
    }


def describe(device: str) -> dict[str, str]:
    """Where this was measured."""
    import torch
    import transformers

    names = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": " ".join(sys.argv[1:]),
    }
    names |= {"transformers": transformers.__version__, "device": device, "machine": platform.machine()}
    if device == "cpu":
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        names["device"] = f"cpu, one thread: {models[0] if models else platform.processor()}"
    else:
        names["device"] = torch.cuda.get_device_name(device)
    return names


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """As asked for."""
    for index, step in enumerate(arguments.steps):
        size, rows, *more = step.split(":")
        vocabulary = int(more[0]) if more else VOCABULARY
        compiled = index < arguments.compiled
        yield Case(size, int(rows), arguments.device, arguments.length, vocabulary, compiled)


def add(result: dict[str, Any], case: Case, seconds: dict[str, float]) -> None:
    """Print a case and put it into the result."""
    table = dict(rows(case, seconds))
    result["cases"][case.name] = {"summary": summary(seconds), "contestants": table}
    if "default" not in result:  # the first case: the demo's, unless others are asked for
        result["default"] = {"case": case.name, **summary(seconds)}
    print(case.name)
    for contestant, row in table.items():
        print(f"  {contestant:28} {row}", flush=True)
    print(f"  {summary(seconds)}", flush=True)


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", nargs="+", help="SIZE:ROWS or SIZE:ROWS:VOCABULARY")
    parser.add_argument("--length", type=int, help="tokens of a row")
    parser.add_argument("--compiled", type=int, help="the first so many are compiled too")
    parser.add_argument("--stacks", nargs="+", type=int, help="models in a stack")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=130, help="begin no case after so many")
    arguments = parser.parse_args()
    for name, value in DEFAULTS[arguments.device.split(":")[0]].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for allocator in ALLOCATORS:
        pipes[allocator], far = context.Pipe()
        context.Process(target=serve, args=(far, allocator), daemon=True).start()
    result: dict[str, Any] = {"measured_on": describe(arguments.device), "cases": {}}
    began = time.monotonic()
    for case in cases(arguments):
        if result["cases"] and time.monotonic() - began > arguments.seconds:
            result["left_out"] = [*result.get("left_out", ()), case.name]
        else:
            add(result, case, measure(pipes, case, arguments.stacks, arguments.repeats))
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    for pipe in pipes.values():
        pipe.send(None)


if __name__ == "__main__":
    main()
