"""Tokens that Streaming draws of every domain in an epoch; the rows are written here, as it wants them."""

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

import numpy as np
import yaml
from streaming import MDSWriter, Stream, StreamingDataset
from streaming.base.util import clean_stale_shared_memory

directory = Path(sys.argv[1])
told = yaml.safe_load((directory / "train_loader.yaml").read_text())["train_loader"]["dataset"]
for name, stream in told["streams"].items():
    ids = np.fromfile(directory / f"{name}-0.npy", np.uint16).astype(np.int32)
    with MDSWriter(out=stream["local"], columns={"tokens": "ndarray:int32"}) as writer:
        for row in range(len(ids) // told["max_seq_len"]):
            writer.write({"tokens": ids[row * told["max_seq_len"] : (row + 1) * told["max_seq_len"]]})
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
