"""Tokens that CombinedStreamingDataset draws of every domain; the folders are written here, as it wants them."""

import collections
import json
import sys
from pathlib import Path

import numpy as np
import torch
from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader
from litdata.streaming.cache import Cache

directory = Path(sys.argv[1])
told = json.loads((directory / "combined.json").read_text())
run = json.loads((directory / "run.json").read_text())
length = run["sequence_length"]
for each in told["datasets"]:
    folder = Path(each["input_dir"])
    ids = np.fromfile(directory / f"{folder.name}-0.npy", np.uint16).astype(np.int32)
    cache = Cache(str(folder), chunk_bytes="1MB", item_loader=TokensLoader(block_size=length))
    cache[0] = torch.from_numpy(ids)
    cache.done()
    cache.merge()
combined = CombinedStreamingDataset(
    [
        StreamingDataset(each["input_dir"], item_loader=TokensLoader(block_size=length), shuffle=False)
        for each in told["datasets"]
    ],
    seed=told["seed"],
    weights=told["weights"],
    iterate_over_all=told["iterate_over_all"],
)
drawn: collections.Counter[str] = collections.Counter()
wanted = run["target_tokens"]
while sum(drawn.values()) < wanted:
    before = sum(drawn.values())
    for row in combined:
        drawn[f"d{int(row.max()) // 256:02d}"] += len(row)
        if sum(drawn.values()) >= wanted:
            break
    assert sum(drawn.values()) > before
print(json.dumps(drawn))
