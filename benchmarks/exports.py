"""What writing for trainers takes: ``python -m benchmarks.exports [--gigabytes 1] [--directory DIR] [--json FILE]``.

1. A shard of so many GB of uint16 tokens, in documents of 800 tokens on average (geometric, seed 0), is written as
   the token files of four trainers, documents shuffled, and then what was written is copied by ``cp -r``. Both end
   with the data on the disk (fsync). The figure is the ratio of the seconds, of three pairs the median; CPU
   seconds of both stand beside it, for the machine may have other work.
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from exchange.formats import FORMATS, Blend, export
from proxy_models.storage import flush
from proxy_models.text.token_shard import META, TOKENS, ShardMeta, TokenShard
from proxy_models.text.token_writing import Order, write_tokens

DOCUMENT_TOKENS = 800
DOMAINS = 1000
COPIED = ("olmo-core", "megatron", "streaming", "litdata")
"""Layouts that are written; the rows of the last two are int32, twice the bytes of the shard."""
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


@dataclass(frozen=True)
class Taken:
    """What filling a directory takes, until all is on the disk."""

    seconds: float
    cpu_seconds: float

    @classmethod
    def by(cls, work: Callable[[], object], target: Path) -> "Taken":
        """Of the work, its child processes among it."""
        started, before = time.monotonic(), _cpu_seconds()
        work()
        for file in [*target.iterdir(), target]:
            flush(file)
        return cls(time.monotonic() - started, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def token_files(gigabytes: float, directory: Path) -> dict[str, Any]:
    """What writing a shard and copying what was written take, by layout."""
    shard = make_shard(directory / "shard", round(gigabytes * 1e9 / 2))
    found = {}
    for layout in COPIED:
        copy, target = directory / "copy", directory / layout
        written, copied, size = [], [], 0
        for _ in range(1 + PAIRS):
            written.append(Taken.by(partial(write_tokens, shard, target, Order(layout, ROW)), target))
            command = ["cp", "-r", str(target), str(copy)]
            copied.append(Taken.by(partial(subprocess.run, command, check=True), copy))
            size = sum(file.stat().st_size for file in target.iterdir())
            shutil.rmtree(target)
            shutil.rmtree(copy)
        # The first pair is not counted: memory that a virtual machine has not used before is slow to get.
        written, copied = written[1:], copied[1:]
        pairs = list(zip(written, copied, strict=True))
        found[layout] = {
            "gigabytes": size / 1e9,
            "seconds": statistics.median(one.seconds for one in written),
            "ratio_to_cp": statistics.median(one.seconds / other.seconds for one, other in pairs),
            "cpu_seconds": statistics.median(one.cpu_seconds for one in written),
            "cp_cpu_seconds": statistics.median(one.cpu_seconds for one in copied),
        }
    return {"gigabytes": gigabytes, "layouts": found}


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
