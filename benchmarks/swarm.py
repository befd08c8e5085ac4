"""A whole small swarm, stacked in waves against one run after the other: ``python -m benchmarks.swarm``.

64 proxy runs of the demo's size, batch and length over real shards: a corpus written on the spot (domains of unlike
vocabularies and grammars), tokenized by our preparation. The two ways live in a process each, which has its own peak
of memory, and take turns wave by wave, so that what else the machine does meets both. CPU seconds count everything
(drawing batches, training, evaluation, results on disk) but what a process does at its first run. Their BPB must be
the same to 5e-6, or rank the runs alike.
"""

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trainer import describe

SIZE, VOCABULARY, DOMAINS = "nano-0.1M", 4096, 6
DOCUMENTS, WORDS = 500, 120
BATCH_ROWS, SEQUENCE_LENGTH = 8, 64
AGREEMENT = 5e-6
WAYS = ("stacked", "one by one")


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
    from proxy_models.preparation import PreparationSpec, prepare_domain, training_sample
    from proxy_models.tokenizer import train_byte_level_bpe

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


def orders(shards: dict[str, str], runs: int, tokens: int, directory: Path) -> list[dict[str, Any]]:
    """The runs as JSON, each a Dirichlet mixture with a seed of its own."""
    mixtures = np.random.default_rng(1).dirichlet(np.ones(DOMAINS), runs)
    return [
        {
            "size": SIZE,
            "vocabulary_size": VOCABULARY,
            "mixture": dict(zip(shards, weights.tolist(), strict=True)),
            "shards": shards,
            "directory": str(directory / f"{run:03}"),
            "training": {
                "tokens": tokens,
                "sequence_length": SEQUENCE_LENGTH,
                "batch_rows": BATCH_ROWS,
                "seed": run,
            },
        }
        for run, weights in enumerate(mixtures)
    ]


def serve(pipe: Connection, way: str) -> None:
    """A process of its own: trains the runs it is sent, answers with CPU seconds, peak memory and their BPB."""
    from proxy_models.run import train_run
    from proxy_models.run_spec import RunSpec
    from proxy_models.wave import WaveOptions, train_wave

    while (order := pipe.recv()) is not None:
        specs = [RunSpec.from_dict(content) for content in order]
        started = time.process_time()
        if way == "stacked":
            results = train_wave(specs, WaveOptions("stacked"))
        else:
            results = [train_run(spec) for spec in specs]
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
        "the_same": round(min(ranks), 12) == 1.0 or largest <= AGREEMENT,
    }


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Train the swarm both ways, a wave at a time."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for way in WAYS:
        pipes[way], far = context.Pipe()
        context.Process(target=serve, args=(far, way), daemon=True).start()
        far.close()  # so that a process that dies is heard of
    shards = prepare(directory)
    swarms = {way: orders(shards, arguments.runs, arguments.tokens, directory / way) for way in WAYS}
    for way, pipe in pipes.items():  # what a process does once in its life is not counted
        pipe.send(orders(shards, 2, BATCH_ROWS * SEQUENCE_LENGTH, directory / f"first {way}"))
        pipe.recv()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    peaks: dict[str, int] = {}
    finals: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for wave, start in enumerate(range(0, arguments.runs, arguments.wave)):
        for way in WAYS if wave % 2 else WAYS[::-1]:
            pipes[way].send(swarms[way][start : start + arguments.wave])
            took, peaks[way], found = pipes[way].recv()
            seconds[way].append(took)
            finals[way] += found
            print(f"wave {wave}, {way}: {took:.1f} CPU s", flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    ratios = [apart / stacked for stacked, apart in zip(*(seconds[way] for way in WAYS), strict=True)]
    return {
        "runs": arguments.runs,
        "wave": arguments.wave,
        "tokens_per_run": arguments.tokens,
        "ways": {
            way: {
                "cpu_seconds": round(sum(seconds[way]), 1),
                "cpu_seconds_by_wave": [round(value, 2) for value in seconds[way]],
                "peak_memory_mib": round(peaks[way] / 2**20),
            }
            for way in WAYS
        },
        "median_ratio_of_cpu_seconds": round(statistics.median(ratios), 2),
        **compare(*(finals[way] for way in WAYS)),
    }


def main() -> None:
    """Print and write the result; exit with 1 where the two ways disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--wave", type=int, default=16, help="runs stacked together")
    parser.add_argument("--tokens", type=int, default=10_240, help="of one run")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as directory:
        result = {"measured_on": describe("cpu"), **measure(arguments, Path(directory))}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if not result["the_same"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
