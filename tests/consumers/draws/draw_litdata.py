"""Tokens that CombinedStreamingDataset draws of every domain."""

import collections
import json
import sys
from pathlib import Path

from litdata import CombinedStreamingDataset, StreamingDataset, TokensLoader

directory = Path(sys.argv[1])
told = json.loads((directory / "combined.json").read_text())
run = json.loads((directory / "run.json").read_text())
length = run["sequence_length"]
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
