"""What writing for trainers takes: ``python -m benchmarks.exports [--gigabytes 1] [--directory DIR] [--json FILE]``.

1. A shard of so many GB of uint16 tokens, in documents of 800 tokens on average (geometric, seed 0), is written as
   the token files of four trainers, documents shuffled, each beside a ``cp`` of the same file. Both end with the data
   on the disk (fsync). The figure is the ratio of the seconds, of three pairs the median; CPU
   seconds stand beside it, for the machine may have other work.
2. A mixture over 1,000 domains is written in every format, with its realised report: CPU seconds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from exchange.formats import FORMATS, Blend, export
from proxy_models.text.token_shard import META, TOKENS, ShardMeta, TokenShard
from proxy_models.text.token_writing import Order, write_tokens

DOCUMENT_TOKENS = 800
DOMAINS = 1000
COPIED = ("olmo-core", "megatron", "streaming", "litdata")
"""Layouts of which a gigabyte is written; the rows of the last two are int32, twice the bytes of the shard."""
ROW = 2048
PAIRS = 3
_PIECE = 2**24


def make_shard(directory: Path, tokens: int) -> TokenShard:
    """A shard of random ids; 0 ends a document."""
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (directory / TOKENS).open("wb") as file:
        for begin in range(0, tokens, _PIECE):
            ids = generator.integers(1, 50_000, size=min(_PIECE, tokens - begin), dtype=np.uint16)
            ids[generator.random(len(ids)) < 1 / DOCUMENT_TOKENS] = 0
            ids[-1] = 0
            file.write(ids.tobytes())
    counts = ("documents", "size_bytes", "held_out_documents", "held_out_bytes", "held_out_tokens")
    evaluated = ("evaluation_documents", "evaluation_bytes", "evaluation_tokens")
    meta = ShardMeta(
        key="benchmark",
        tokenizer="none",
        vocabulary_size=50_000,
        end_of_text=0,
        dtype="<u2",
        tokens=tokens,
        **dict.fromkeys((*counts, *evaluated), 1),
    )
    (directory / META).write_text(json.dumps(asdict(meta)))
    return TokenShard.open(directory)


def seconds(work: Callable[[], object], target: Path) -> float:
    """Of the work, until what it wrote is on the disk."""
    started = time.monotonic()
    work()
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return time.monotonic() - started


def token_files(gigabytes: float, directory: Path) -> dict[str, Any]:
    """Ratios of writing a shard to copying it, by layout."""
    shard = make_shard(directory / "shard", round(gigabytes * 1e9 / 2))
    ratios: dict[str, list[float]] = {layout: [] for layout in COPIED}
    copied: list[float] = []
    processor: dict[str, list[float]] = {layout: [] for layout in COPIED}
    for _ in range(PAIRS):
        for layout in COPIED:
            copy, target = directory / "copy", directory / layout
            command = ["cp", str(shard.directory / TOKENS), str(copy)]
            copied.append(seconds(partial(subprocess.run, command, check=True), copy))
            copy.unlink()
            before = time.process_time()
            took = seconds(partial(write_tokens, shard, target, Order(layout, ROW)), target)
            processor[layout].append(time.process_time() - before)
            ratios[layout].append(took / copied[-1])
            shutil.rmtree(target)
    return {
        "gigabytes": gigabytes,
        "copy_seconds": statistics.median(copied),
        "cpu_seconds": {layout: statistics.median(values) for layout, values in processor.items()},
        "ratio_to_cp": {layout: statistics.median(values) for layout, values in ratios.items()},
    }


def formats() -> dict[str, float]:
    """CPU seconds of writing a mixture over 1,000 domains, by format."""
    weights = np.random.default_rng(0).dirichlet(np.full(DOMAINS, 5.0)).tolist()
    names = [f"source{number // 50}:topic{number % 50}" for number in range(DOMAINS)]
    blend = Blend.of(
        dict(zip(names, weights, strict=True)),
        tokens=dict.fromkeys(names, 1e9),
        documents=dict.fromkeys(names, 1e6),
        path="/data/{domain}/*.npy",
        target_tokens=10**11,
    )
    spent = {}
    for name in FORMATS:
        started = time.process_time()
        export(blend, name)
        spent[name] = time.process_time() - started
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--directory", type=Path, help="On the disk to be measured.")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory(dir=given.directory) as directory:
        result = {
            "token_files": token_files(given.gigabytes, Path(directory)),
            "format_cpu_seconds": formats(),
        }
    print(json.dumps(result, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
