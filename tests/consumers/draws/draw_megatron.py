"""Tokens that Megatron's blended dataset deals out of every domain."""

import collections
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch.distributed
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list

logging.disable(logging.CRITICAL)
directory = Path(sys.argv[1])
told = json.loads((directory / "run.json").read_text())
os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1")
store = torch.distributed.FileStore(str(directory / "store"), 1)
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
tokenizer = SimpleNamespace(
    eod=0, unique_identifiers={"name": "bytes"}, vocab_size=told["vocabulary"], pad=-1, bos=-1, eos=0
)
config = GPTDatasetConfig(
    random_seed=told["seed"],
    sequence_length=told["sequence_length"],
    blend=get_blend_from_list((directory / "blend.txt").read_text().split()),
    split="1",
    tokenizer=tokenizer,
    reset_position_ids=False,
    reset_attention_mask=False,
    eod_mask_loss=False,
    create_attention_mask=False,
    path_to_cache=str(directory / "cache"),
)
rows = told["target_tokens"] // told["sequence_length"]
train, _, _ = BlendedMegatronDatasetBuilder(GPTDataset, [rows, 0, 0], lambda: True, config).build()
drawn: collections.Counter[str] = collections.Counter()
for index in range(len(train)):
    ids = train[index]["tokens"]
    drawn[f"d{int(ids.max()) // 256:02d}"] += len(ids)
print(json.dumps(drawn))
