"""Tokens that interleave_datasets draws of every domain."""

import collections
import json
import sys
from pathlib import Path

from datasets import interleave_datasets, load_dataset

directory = Path(sys.argv[1])
told = json.loads((directory / "interleave.json").read_text())
sources = [
    load_dataset("json", data_files=each["data_files"], split="train", streaming=True).repeat(None)
    for each in told["datasets"]
]
mixed = interleave_datasets(
    sources,
    probabilities=told["probabilities"],
    seed=told["seed"],
    stopping_strategy=told["stopping_strategy"],
).take(told["take"])
drawn: collections.Counter[str] = collections.Counter()
for document in mixed:
    drawn[document["domain"]] += document["tokens"]
print(json.dumps(drawn))
