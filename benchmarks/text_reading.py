"""How fast text is read, counted, tokenized and held against tasks, and small files looked at.

``python -m benchmarks.text_reading``. The text is the Python sources of the installed packages, a document a file, as
JSON lines under Zstandard and as Parquet. With ``--beside PYTHON``, an interpreter that has ``datatrove``, its
tokenizer reads the same files with the same tokenizer in the same run, without the time it takes to start. Everything
has one thread. Ours also splits off held-out text and takes digests. Examples that the tokens are held against are
cut out of them, so each is found wherever it is: the worst case.
"""

import argparse
import json
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

from proxy_models.text.contamination import contamination
from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
from proxy_models.text.task_file import TaskExample
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import load_tokenizer, train_byte_level_bpe

DATATROVE = """
import sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.tokens import DocumentTokenizer
folder, name, tokenizer, out = sys.argv[1:]
reader = ParquetReader if name.endswith("parquet") else JsonlReader
executor = LocalPipelineExecutor(
    pipeline=[
        reader(folder, glob_pattern=name),
        DocumentTokenizer(out, tokenizer, eos_token="<|endoftext|>", shuffle_documents=False),
    ],
    logging_dir=out + "/log",
)
begun = time.perf_counter(), time.process_time()
executor.run()
print(time.perf_counter() - begun[0], time.process_time() - begun[1])
"""


def texts_of(folder: Path, size_bytes: int) -> list[str]:
    """Sources in the order of their names, as many as make up the size."""
    texts, total = [], 0
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text("utf-8", errors="ignore")
        if text.strip():
            texts.append(text)
            total += len(text.encode())
        if total >= size_bytes:
            break
    return texts


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def compare(size_bytes: int, beside: str | None, folder: Path) -> list[dict[str, object]]:
    """A row for each file and reader."""
    texts = texts_of(Path(sysconfig.get_paths()["purelib"]), size_bytes)
    size = sum(len(text.encode()) for text in texts)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (folder / "code.jsonl.zst").write_bytes(zstandard.compress(lines))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), folder / "code.parquet")
    path = folder / "tokenizer.json"
    train_byte_level_bpe(training_sample([folder / "code.parquet"], 0.02, 5_000_000), 4096, path)
    rows: list[dict[str, object]] = []
    for name in ("code.jsonl.zst", "code.parquet"):
        spec = PreparationSpec("code", (folder / name,), load_tokenizer(path), folder / "shards")
        ours = timed(lambda spec=spec: prepare_domain(spec))
        rows.append(row(name, "mixwright", size, *ours))
        if beside is not None:
            out = str(folder / f"datatrove-{name}")
            command = [beside, "-c", DATATROVE, str(folder), name, str(path), out]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(row(name, "datatrove", size, *map(float, done.stdout.split()[-2:])))
    return rows


def row(file: str, reader: str, size: int, wall: float, processor: float) -> dict[str, object]:
    """What is written of one measurement."""
    megabytes = size / 1e6
    print(f"{file:16} {reader:10} {megabytes / wall:6.2f} MB/s, {megabytes / processor:6.2f} MB/CPU-second")
    return {"file": file, "reader": reader, "megabytes": megabytes, "seconds": wall, "cpu_seconds": processor}


def search_for_tasks(folder: Path, examples: int) -> dict[str, object]:
    """Tokens a CPU second that are held against a task, of examples cut out of the text itself and out of noise."""
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    shard = TokenShard.open(next((folder / "shards").glob("*/tokens.bin")).parent)
    step = max(1, len(shard.tokens) // examples)
    texts = [tokenizer.decode(shard.tokens[at : at + 100]) for at in range(0, len(shard.tokens) - 100, step)]
    task = [TaskExample(text[:-20], text[-20:]) for text in texts]
    repeated: Any = SimpleNamespace(tokens=np.tile(shard.tokens, max(1, 10**8 // len(shard.tokens))))
    _, apart = timed(lambda: contamination({"task": task}, {}, tokenizer))
    _, processor = timed(lambda: contamination({"task": task}, {"code": repeated}, tokenizer))
    tokens = len(repeated.tokens)
    print(f"{tokens / 1e6 / (processor - apart):.0f} M tokens a CPU second held against {len(task)} examples")
    return {"tokens": tokens, "examples": len(task), "cpu_seconds": processor - apart}


def look_at_small_files(count: int, folder: Path) -> dict[str, object]:
    """Seconds to check a domain of so many files as a request does."""
    from proxy_models.text.data_roots import reading_below
    from service.domain_sets.checks import FileRules, PlacedDomain, check_domain
    from service.domain_sets.schemas import DomainRequest
    from store.settings import Settings

    small = folder / "small"
    small.mkdir()
    for number in range(count):
        text = json.dumps({"text": f"document {number} " + "word " * 20})
        (small / f"{number:06d}.jsonl").write_text(f"{text}\n" * 3)
    settings = Settings(data_directory=folder / "data", data_roots=str(folder))
    request = PlacedDomain(DomainRequest(name="web", files=[f"{small}/"]), "domains[0]")
    with reading_below(settings.roots):
        wall, processor = min(timed(lambda: check_domain(request, FileRules(settings))) for _ in range(3))
    print(f"{count} files looked at in {wall:.2f} s, {processor:.2f} s of the processor")
    return {"files": count, "seconds": wall, "cpu_seconds": processor}


def main() -> None:
    """Measure, and write what ``--output`` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--beside", help="a Python interpreter that has datatrove")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(arguments.megabytes * 10**6, arguments.beside, Path(folder))
        searched = [search_for_tasks(Path(folder), examples) for examples in (1000, 10_000)]
        looked = look_at_small_files(arguments.files, Path(folder))
    if arguments.output is not None:
        measured = {"rows": rows, "tasks": searched, "small_files": looked}
        arguments.output.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
