"""Tokens that Streaming draws of every domain in an epoch."""

import collections
import json
import sys
import types
from pathlib import Path

import transformers  # noqa: F401  asks whether torchvision is there, and must not find what follows

# It imports torchvision for pictures, of which there are none here.
for name in (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
):
    sys.modules[name] = types.ModuleType(name)
sys.modules["torchvision.datasets"].VisionDataset = object
sys.modules["torchvision.transforms.functional"].to_tensor = None

import yaml
from streaming import Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

directory = Path(sys.argv[1])
told = yaml.safe_load((directory / "train_loader.yaml").read_text())["train_loader"]["dataset"]
clean_stale_shared_memory()
dataset = StreamingDataset(
    streams=[Stream(local=stream["local"], choose=stream["choose"]) for stream in told["streams"].values()],
    shuffle=told["shuffle"],
    shuffle_seed=told["shuffle_seed"],
    batch_size=1,
)
drawn: collections.Counter[str] = collections.Counter()
for sample in dataset:
    drawn[f"d{int(sample['tokens'].max()) // 256:02d}"] += len(sample["tokens"])
clean_stale_shared_memory()
print(json.dumps(drawn))
