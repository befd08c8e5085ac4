"""A whole small swarm, by the backend that is chosen for it against one run after the other:
``python -m benchmarks.swarm``.

64 proxy runs of the demo's size, batch and length over real shards: a corpus written on the spot (domains of unlike
vocabularies and grammars), tokenized by our preparation. The backend and the size of its waves
are what `calibration.choose` answers from rates measured first, as a worker does (``--compiled`` measures those too),
or what ``--backend`` and ``--wave`` say. The two ways live in a process each, which has its own peak of memory, and
take turns, so that what else the machine does meets both. CPU seconds count everything (drawing batches, training,
evaluation, results on disk) but what a process does at its first wave. The ranks of the runs must correlate by more
than 0.99 on every domain, whatever the precision of the one way; the other is float32.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trainer import describe
from proxy_models.config import FLOAT32, PRECISIONS

SIZE, VOCABULARY, DOMAINS = "nano-0.1M", 4096, 6
DOCUMENTS, WORDS = 500, 120
BATCH_ROWS, SEQUENCE_LENGTH = 8, 64
ALIKE = 0.99
"""Rank correlation. Training at a high rate amplifies what rounding moves, in float64 as in float32."""
WAYS = ("chosen", "one by one")
TURN = 16
"""Runs a way trains before it is the other's turn."""


def write_corpus(directory: Path) -> dict[str, Path]:
    """JSONL files: each domain walks its own Markov chain over words partly its own."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(generator.choice(letters, generator.integers(2, 9))) for _ in range(6000)]
    files = {}
    for domain in range(DOMAINS):
        known = generator.choice(words, 1500, replace=False)
        following = generator.integers(0, len(known), (len(known), 4))
        path = directory / f"{domain}.jsonl"
        with path.open("w", encoding="utf-8") as out:
            for _ in range(DOCUMENTS):
                word, text = int(generator.integers(len(known))), []
                for _ in range(WORDS):
                    text.append(known[word])
                    likely = generator.random() < 0.5 + 0.08 * domain
                    word = int(
                        following[word, generator.integers(4)] if likely else generator.integers(len(known))
                    )
                out.write(json.dumps({"text": " ".join(text)}) + "\n")
        files[f"d{domain}"] = path
    return files


def prepare(directory: Path) -> dict[str, str]:
    """Each domain's shard directory."""
    from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
    from proxy_models.text.tokenizer import train_byte_level_bpe

    files = write_corpus(directory)
    sample = training_sample(tuple(files.values()), 0.05, 1_000_000)
    tokenizer = train_byte_level_bpe(sample, VOCABULARY, directory / "tokenizer.json")
    return {
        name: str(
            prepare_domain(
                PreparationSpec(name, (file,), tokenizer, directory / "shards", 0.05, 4096, 512)
            ).directory
        )
        for name, file in files.items()
    }


@dataclass(frozen=True)
class Swarm:
    """Runs of so many tokens each, trained in a precision."""

    runs: int
    tokens: int
    batch_rows: int = BATCH_ROWS
    precision: str = FLOAT32

    def training(self, seed: int = 0) -> dict[str, Any]:
        """How a run is trained."""
        return {
            "tokens": self.tokens,
            "sequence_length": SEQUENCE_LENGTH,
            "batch_rows": self.batch_rows,
            "seed": seed,
            "precision": self.precision,
        }


def orders(shards: dict[str, str], swarm: Swarm, directory: Path) -> list[dict[str, Any]]:
    """The runs as JSON, each a Dirichlet mixture with a seed of its own."""
    mixtures = np.random.default_rng(1).dirichlet(np.ones(DOMAINS), swarm.runs)
    return [
        {
            "size": SIZE,
            "vocabulary_size": VOCABULARY,
            "mixture": dict(zip(shards, weights.tolist(), strict=True)),
            "shards": shards,
            "directory": str(directory / f"{run:03}"),
            "training": swarm.training(run),
        }
        for run, weights in enumerate(mixtures)
    ]


def choose_way(pipe: Connection, swarm: Swarm, compiled: bool) -> None:
    """A process of its own: measures the backends and answers with the choice."""
    import torch

    from proxy_models.backends import available
    from proxy_models.config import TrainingConfig, size_named
    from proxy_models.planning import calibration
    from proxy_models.planning.calibrate import calibrate
    from proxy_models.training.step import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    model, config = size_named(SIZE, VOCABULARY), TrainingConfig(**swarm.training())
    table = calibrate(model, config, backends=available("cpu", compiled))
    choice = calibration.choose(calibration.SwarmSize(model, config, swarm.runs), table)
    rates = {f"{rate.backend} {rate.members}": round(rate.tokens_per_second) for rate in table.rates}
    pipe.send(
        {"backend": choice.rate.backend, "wave": choice.rate.members, "calibrated_tokens_per_second": rates}
    )


def serve(pipe: Connection, backend: str | None, wave: int) -> None:
    """A process of its own: trains the runs it is sent, answers with CPU seconds, peak memory and their BPB.

    In waves of ``wave`` on ``backend``, or one after the other where that is None.
    """
    from proxy_models.training.run_spec import RunSpec
    from proxy_models.training.wave import WaveOptions, train_run, train_wave

    while (order := pipe.recv()) is not None:
        specs = [RunSpec.from_dict(content) for content in order]
        started = time.process_time()
        if backend is None:
            results = [train_run(spec) for spec in specs]
        else:
            waves = [specs[start : start + wave] for start in range(0, len(specs), wave)]
            results = [result for part in waves for result in train_wave(part, WaveOptions(backend))]
        seconds = time.process_time() - started
        finals = []
        for result in results:
            if isinstance(result, Exception):
                raise result
            finals.append(result.final)
        pipe.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, finals))


def compare(mine: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    """How far the metrics of the two ways are apart, and whether they rank the runs alike."""
    from scipy.stats import rankdata

    ranks = [
        float(np.corrcoef(*(rankdata([run[task] for run in runs]) for runs in (mine, theirs)))[0, 1])
        for task in mine[0]
    ]
    largest = max(
        abs(one[task] - other[task]) for one, other in zip(mine, theirs, strict=True) for task in one
    )
    return {
        "lowest_rank_correlation": round(min(ranks), 12),  # a sum of floats may fall short of 1
        "largest_difference_bpb": largest,
        "ranks_alike": min(ranks) > ALIKE,
    }


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Train the swarm both ways, a turn at a time."""
    context = multiprocessing.get_context("spawn")

    def start(target: Callable[..., None], *others: Any) -> Connection:
        pipe, far = context.Pipe()
        context.Process(target=target, args=(far, *others), daemon=True).start()
        far.close()  # so that a process that dies is heard of
        return pipe

    asked = Swarm(arguments.runs, arguments.tokens, arguments.batch_rows, arguments.precision)
    if arguments.backend is None:
        choice = start(choose_way, asked, arguments.compiled).recv()
    else:
        choice = {"backend": arguments.backend, "wave": arguments.wave}
    print(choice, flush=True)
    backend, wave = choice["backend"], choice["wave"]
    pipes = {"chosen": start(serve, backend, wave), "one by one": start(serve, None, 1)}
    shards = prepare(directory)
    asked_of = {"chosen": asked, "one by one": replace(asked, precision=FLOAT32)}
    swarms = {way: orders(shards, swarm, directory / way) for way, swarm in asked_of.items()}
    for way, pipe in pipes.items():  # what a process does once in its life is not counted
        first = replace(asked_of[way], runs=wave, tokens=asked.batch_rows * SEQUENCE_LENGTH)
        pipe.send(orders(shards, first, directory / f"first {way}"))
        pipe.recv()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks: dict[str, int] = {}
    finals: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for turn, first in enumerate(range(0, arguments.runs, TURN)):
        for way in WAYS if turn % 2 else WAYS[::-1]:
            pipes[way].send(swarms[way][first : first + TURN])
            took, peaks[way], found = pipes[way].recv()
            seconds[way].append(took)
            finals[way] += found
            print(f"turn {turn}, {way}: {took:.1f} CPU s", flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    ratios = [apart / chosen for chosen, apart in zip(*(seconds[way] for way in WAYS), strict=True)]
    return {
        "runs": arguments.runs,
        "tokens_per_run": arguments.tokens,
        "tokens_per_step": asked.batch_rows * SEQUENCE_LENGTH,
        "choice": choice,
        "ways": {
            way: {
                "precision": asked_of[way].precision,
                "cpu_seconds": round(sum(seconds[way]), 1),
                "cpu_seconds_by_turn": [round(value, 2) for value in seconds[way]],
                "peak_memory_mib": round(peaks[way] / 2**20),
            }
            for way in WAYS
        },
        "median_ratio_of_cpu_seconds": round(statistics.median(ratios), 2),
        **compare(finals[WAYS[0]], finals[WAYS[1]]),
    }


def main() -> None:
    """Print and write the result; exit with 1 where the two ways disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=20_480, help="of one run")
    parser.add_argument("--batch-rows", type=int, default=BATCH_ROWS)
    parser.add_argument("--precision", choices=PRECISIONS, default=FLOAT32, help="of the chosen way")
    parser.add_argument("--backend", help="instead of what is chosen")
    parser.add_argument("--wave", type=int, default=TURN, help="models at once with --backend")
    parser.add_argument("--compiled", action="store_true", help="measure compiled backends too")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as directory:
        result = {"measured_on": describe("cpu"), **measure(arguments, Path(directory))}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if not result["ranks_alike"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
