"""Tokens that Axolotl's data sets hold of every domain, loaded and joined with `datasets` as it does."""

import collections
import json
import sys
from pathlib import Path

import yaml
from datasets import concatenate_datasets, load_dataset

directory = Path(sys.argv[1])
told = yaml.safe_load((directory / "axolotl.yaml").read_text())
joined = concatenate_datasets(
    [load_dataset(each["ds_type"], data_files=each["path"], split="train") for each in told["datasets"]]
).shuffle(seed=told["seed"])
drawn: collections.Counter[str] = collections.Counter()
for row in joined:
    ids = row["input_ids"]
    assert ids == row["labels"]
    assert len(ids) == len(row["attention_mask"]) <= told["sequence_len"]
    drawn[f"d{max(ids) // 256:02d}"] += len(ids)
print(json.dumps(drawn))
