"""Tokens that Axolotl's own loader reads of every domain: its data sets, joined and shuffled as it trains on them."""

import collections
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import yaml

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
from axolotl.utils.data.sft import _load_raw_datasets
from axolotl.utils.dict import DictDefault


def main() -> None:
    """Load and count; not on import, for the loader saves by processes that import this again."""
    directory = Path(sys.argv[1])
    told = yaml.safe_load((directory / "axolotl.yaml").read_text())
    own = {"dataset_prepared_path": str(directory / "prepared"), "dataset_num_proc": 1, "is_preprocess": True}
    configuration = DictDefault({**told, **own})
    tokenizer = SimpleNamespace(name_or_path="bytes")
    joined, _ = _load_raw_datasets(configuration, configuration.datasets, tokenizer, "train")
    drawn: collections.Counter[str] = collections.Counter()
    for row in joined:
        ids = row["input_ids"]
        assert ids == row["labels"]
        assert len(ids) == len(row["attention_mask"]) <= told["sequence_len"]
        drawn[f"d{max(ids) // 256:02d}"] += len(ids)
    print(json.dumps(drawn))


if __name__ == "__main__":
    main()
