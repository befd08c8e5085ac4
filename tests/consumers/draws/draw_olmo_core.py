"""Tokens that OLMo-core's dataset holds of every domain."""

import collections
import json
import logging
import sys
from pathlib import Path

from olmo_core.data import NumpyDatasetDType, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList

logging.disable(logging.CRITICAL)
directory = Path(sys.argv[1])
told = json.loads((directory / "run.json").read_text())
mixture = SourceMixtureDatasetConfig(
    source_list=SourceMixtureList.from_yaml(str(directory / "sources.yaml")),
    requested_tokens=told["target_tokens"],
    global_batch_size=told["batch_tokens"],
    quiet=True,
    render_tables=False,
)
dataset = NumpyFSLDatasetConfig.from_src_mix(
    mixture,
    tokenizer=TokenizerConfig(vocab_size=told["vocabulary"], eos_token_id=0, pad_token_id=0),
    sequence_length=told["sequence_length"],
    work_dir=str(directory / "work"),
    dtype=NumpyDatasetDType.uint16,
).build()
dataset.prepare()
drawn: collections.Counter[str] = collections.Counter()
for index in range(len(dataset)):
    ids = dataset[index]["input_ids"]
    drawn[f"d{int(ids.max()) // 256:02d}"] += len(ids)
print(json.dumps(drawn))
