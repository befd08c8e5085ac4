"""What it saves to evaluate on an idle slot: ``python -m benchmarks.evaluation --json FILE``.

The last tenth of a run of the demo's size, in which its tasks are evaluated, from a checkpoint to the result: with no
other device, and with an idle processor, which is offered and borrowed as the slots of a machine do it. Wall seconds,
everything counted, medians of interleaved repeats; it takes two cores that have nothing else to do. The numbers of
both ways must be equal to the last bit.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.swarm import VOCABULARY, prepare, write_corpus
from benchmarks.trainer import describe
from proxy_models.evaluation.lending import NOTHING_LENT, Lending
from proxy_models.training.run_result import RunResult
from proxy_models.training.run_spec import RunSpec, TaskSpec
from workers.claims.slots import Slot
from workers.execution.devices import OwnDevice, lending_to

BATCH_ROWS, SEQUENCE_LENGTH = 8, 64
STEPS, EVALUATIONS = 4000, 3
EXAMPLES, CONTEXT_WORDS, WORDS = 1300, 30, 30
HERE, LENT = "evaluated here", "evaluated on an idle slot"


def write_task(directory: Path, files: dict[str, Path]) -> TaskSpec:
    """Continuations of pieces of the corpus."""
    texts = [
        json.loads(line)["text"].split() for file in files.values() for line in file.open(encoding="utf-8")
    ]
    chosen = np.random.default_rng(0).permutation(len(texts))[:EXAMPLES]
    path = directory / "task.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for text in (texts[index] for index in chosen):
            context = " ".join(text[:CONTEXT_WORDS])
            continuation = " " + " ".join(text[CONTEXT_WORDS : CONTEXT_WORDS + WORDS])
            out.write(json.dumps({"context": context, "continuation": continuation}) + "\n")
    return TaskSpec("task", path)


def order_run(directory: Path, tokenizer: Path, shards: dict[str, str], task: TaskSpec) -> RunSpec:
    """The run, with its task."""
    return replace(
        RunSpec.from_dict(
            {
                "size": "nano-0.1M",
                "vocabulary_size": VOCABULARY,
                "mixture": {name: 1 / len(shards) for name in shards},
                "shards": shards,
                "tokenizer": str(tokenizer),
                "directory": str(directory),
                "training": {
                    "tokens": STEPS * BATCH_ROWS * SEQUENCE_LENGTH,
                    "sequence_length": SEQUENCE_LENGTH,
                    "batch_rows": BATCH_ROWS,
                    "evaluations": EVALUATIONS,
                },
            }
        ),
        tasks=(task,),
    )


def last_tenth(spec: RunSpec, lending: Lending) -> tuple[float, RunResult]:
    """Wall seconds from a checkpoint of the run to its result; what a model has learned costs no time."""
    from proxy_models.families.learning_rate import peak_rate
    from proxy_models.training.checkpoint import Checkpoint, add_checkpoint
    from proxy_models.training.run import train_run
    from proxy_models.training.run_inputs import mixture_sampler, open_shards
    from proxy_models.training.step import Trainer

    sampler = mixture_sampler(spec, open_shards(spec))
    state = Trainer(spec.model, spec.training, sampler, spec.device, peak_rate(spec)).state()
    before: dict[str, object] = {"fingerprint": spec.fingerprint(), "metrics": [], "seconds": 0.0}
    add_checkpoint(spec.directory / "checkpoints", Checkpoint(9 * STEPS // 10 - 1, state, before))
    started = time.perf_counter()
    result = train_run(spec, lending=lending)
    return time.perf_counter() - started, result


def measure(directory: Path, repeats: int) -> tuple[dict[str, list[float]], list[RunResult]]:
    """Wall seconds of every repeat by way, after a run that is not counted, and all results."""
    shards = prepare(directory)
    task = write_task(directory, write_corpus(directory))
    spec = order_run(directory, directory / "tokenizer.json", shards, task)
    idle = OwnDevice(directory / "devices", Slot("idle", "cpu", None))
    idle.offer()
    seconds: dict[str, list[float]] = {HERE: [], LENT: []}
    results = []
    last_tenth(replace(spec, directory=directory / "first", tasks=()), NOTHING_LENT)
    for repeat in range(repeats):
        for way, found in seconds.items():
            lending = lending_to("cpu", directory / "devices") if way == LENT else NOTHING_LENT
            took, result = last_tenth(replace(spec, directory=directory / f"{way}-{repeat}"), lending)
            print(f"{way}: {took:.1f} s", flush=True)
            found.append(took)
            results.append(result)
    idle.withdraw()
    return seconds, results


def report(seconds: dict[str, list[float]], results: list[RunResult]) -> dict[str, Any]:
    """What is printed and written."""
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    return {
        "measured_on": describe("cpu"),
        "repeats": len(seconds[HERE]),
        "wall_seconds": {way: round(found, 2) for way, found in medians.items()},
        "evaluations": EVALUATIONS,
        "ratio": round(medians[LENT] / medians[HERE], 3),
        "numbers_equal": all(one.metrics == results[0].metrics for one in results),
    }


def main() -> None:
    """Print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        result = report(*measure(Path(directory), arguments.repeats))
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
