"""How large a model is and what a token costs it: by formula for our decoder, counted for the library's.

``python -m proxy_models.families.counting`` counts an architecture for processes that have no torch. Its checked
settings come as JSON on standard input; the answer is one line of JSON, `CountsByVocabulary`, or ``{"problem",
"field"}`` where its configuration or its empty model refuses the settings. A request may hold settings that make the
library work without end, so both its time and what it takes of memory on top of itself are limited: beyond them the
process fails.
"""

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import psutil
from torch import nn

from proxy_models.config import ModelConfig
from proxy_models.errors import InvalidSpec
from proxy_models.families.architecture import Architecture, Counts, CountsByVocabulary

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k")


def counted(shape: ModelConfig | Architecture) -> Counts:
    """The counts of a model of this shape. Raises `InvalidSpec` for an architecture the library cannot build."""
    if isinstance(shape, ModelConfig):
        body = shape.non_embedding_parameters
        head = shape.vocabulary_size * shape.width
        return Counts(shape.parameters, body, body, head, shape.layers * shape.attention_width)
    return _counted(json.dumps(shape.settings, sort_keys=True), shape.vocabulary_size)


@lru_cache(maxsize=16)
def _counted(settings: str, vocabulary_size: int) -> Counts:
    from proxy_models.families.transformers_model import (
        empty_model,  # seconds to import, needed for these only
    )

    model: Any = empty_model(Architecture(json.loads(settings), vocabulary_size))
    config = model.config
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tables = {id(table): table.numel() for table in (embedding, head)}
    body = total - sum(tables.values())
    idle = _routed(model) * (1 - _number(config, _CHOSEN, 1) / _number(config, _EXPERTS, 1))
    heads = _number(config, ("num_attention_heads",), 0)
    size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    layers = _number(config, ("num_hidden_layers",), 0)
    return Counts(total, body, body - round(idle), head.numel(), layers * heads * size)


def _routed(model: nn.Module) -> int:
    """Parameters of the experts the router chooses among; those every token passes are not counted."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if ".experts." in name and "shared" not in name
    )


def _number(config: Any, names: tuple[str, ...], otherwise: int) -> int:
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if isinstance(value, int) and value > 0), otherwise)


VOCABULARIES = (1024, 2048, 4096)
MEMORY_BYTES = 2 * 2**30
"""An empty model has no numbers: OLMo 2's 32B takes 10 MB."""
CPU_SECONDS = 30


def main() -> None:
    """Answer for what standard input holds."""
    mine = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (mine, mine))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    print(json.dumps(count(json.load(sys.stdin))))


def count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The line of JSON. The third vocabulary proves what was concluded from two."""
    from proxy_models.families.transformers_model import positions

    try:
        few, many, most = ((size, counted(Architecture(settings, size))) for size in VOCABULARIES)
        counts = CountsByVocabulary.through(few, many, positions(Architecture(settings, most[0])))
        if counts.over(most[0]) != most[1]:
            raise ValueError("more than tables grows with the vocabulary")
    except InvalidSpec as error:
        return {"problem": str(error), "field": error.field}
    except ValueError as error:
        return {"problem": str(error), "field": None}
    return asdict(counts)


if __name__ == "__main__":
    main()
