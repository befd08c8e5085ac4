"""How large a model is and what a token costs it: by formula for our decoder, counted for the library's."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import nn

from proxy_models.config import ModelConfig
from proxy_models.families.architecture import Architecture
from proxy_models.families.counts import Counts

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_k")


def counted(shape: ModelConfig | Architecture) -> Counts:
    """The counts of a model of this shape. Raises `InvalidSpec` for an architecture the library cannot build."""
    if isinstance(shape, ModelConfig):
        body = shape.non_embedding_parameters
        head = shape.vocabulary_size * shape.width
        return Counts(shape.parameters, body, body, head, shape.layers * shape.attention_width)
    return _counted(_Key(shape, shape.vocabulary_size, repr(sorted(shape.settings.items()))))


@dataclass(frozen=True)
class _Key:
    shape: Architecture
    vocabulary_size: int
    settings: str

    def __hash__(self) -> int:
        return hash((self.vocabulary_size, self.settings))


@lru_cache(maxsize=16)
def _counted(key: _Key) -> Counts:
    from proxy_models.families.transformers_model import empty_model

    model: Any = empty_model(key.shape)
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
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), otherwise)
