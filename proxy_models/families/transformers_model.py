"""Causal language models of ``transformers`` behind `model.LanguageModel`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from proxy_models.errors import InvalidSpec, NotEnoughMemory
from proxy_models.families.architecture import ROUTER_Z, Architecture, is_random
from proxy_models.planning.memory import weights_bytes
from proxy_models.torch_device import free_memory
from proxy_models.training.run_spec import seed_of

# What keeps the router of a mixture of experts in order.


def router_z_loss(router_logits: Sequence[Tensor]) -> Tensor:
    """Mean over layers and tokens of (logsumexp of the router's logits)^2; each (tokens, E) -> scalar.

    ST-MoE (arXiv 2202.08906), equation 5; OLMoE (arXiv 2409.02060) adds 0.001 times it to the loss.
    """
    layers = [torch.logsumexp(logits.float(), dim=-1).square().mean() for logits in router_logits]
    return torch.stack(layers).mean()


ROUTER_Z_DEFAULT = 0.001
"""OLMoE's weight of the z-loss (arXiv 2409.02060, section 4.1.5)."""

WHOLE = "1000GB"
"""No file is cut below this size: a saved model is one file."""

_NO_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_LENGTHS = ("max_position_embeddings", "n_positions")


def configuration(architecture: Architecture) -> Any:
    """The library's configuration. Raises `InvalidSpec` naming the setting it refuses, where it says which."""
    settings = {name: value for name, value in architecture.settings.items() if name != "model_type"}
    # the library's special ids belong to another tokenizer, and a padding id would never be learned
    fixed = {**dict.fromkeys(_NO_TOKENS), "vocab_size": architecture.vocabulary_size, "use_cache": False}
    try:
        config = AutoConfig.for_model(architecture.name, **settings, **fixed)
        for name, value in config.to_dict().items():
            if is_random(name) and isinstance(value, float):
                setattr(config, name, 0.0)
    except MemoryError:  # says nothing about the architecture
        raise
    except Exception as error:  # every configuration raises what it likes
        raise _refused(architecture, error) from error
    heads, shared = (getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads"))
    if isinstance(heads, int) and isinstance(shared, int) and heads % shared:
        field = "architecture.num_key_value_heads"
        raise InvalidSpec(f"{field} is {shared}, which does not divide the {heads} heads", field)
    return config


def empty_model(architecture: Architecture) -> nn.Module:
    """The model without its numbers. Raises `InvalidSpec`."""
    config = configuration(architecture)
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _refused(architecture, error) from error


def _refused(architecture: Architecture, error: Exception) -> InvalidSpec:
    text = " ".join(str(error).split())[:500] or type(error).__name__
    named = re.search(r"field '(\w+)'", text)
    field = f"architecture.{named[1]}" if named else "architecture"
    return InvalidSpec(f"{field}: no {architecture.name} can be built: {text}", field)


def positions(architecture: Architecture) -> dict[str, int]:
    """How many tokens the model can see at once, by the settings that say so; the library's defaults count."""
    config = configuration(architecture)
    lengths = {name: getattr(config, name, None) for name in _LENGTHS}
    return {name: known for name, known in lengths.items() if isinstance(known, int)}


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """PyTorch's global generator, which the library draws from, set within the block and as before after it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def build(architecture: Architecture, seed: int) -> nn.Module:
    """The model, initialised by the library from ``(seed, model_type)`` alone.

    Raises `InvalidSpec`, and `NotEnoughMemory` where its numbers would not fit.
    """
    parameters = sum(parameter.numel() for parameter in empty_model(architecture).parameters())
    needed, free = weights_bytes(parameters), free_memory("cpu")
    if needed > free:
        raise NotEnoughMemory(1, needed, free, 0)
    with drawn_from(seed_of("initialize", seed, architecture.name)):
        model = AutoModelForCausalLM.from_config(configuration(architecture), dtype=torch.float32)
    _try(architecture, model)
    return model


@torch.no_grad()
def _try(architecture: Architecture, model: nn.Module) -> None:
    """Sizes that do not fit together show only when tokens pass: better now than at the first step."""
    try:
        logits = model(input_ids=torch.zeros(1, 2, dtype=torch.int64), use_cache=False).logits
    except Exception as error:  # as above
        raise _refused(architecture, error) from error
    if logits.shape != (1, 2, architecture.vocabulary_size):
        raise _refused(architecture, ValueError(f"its logits have the shape {tuple(logits.shape)}"))


class TransformersModel:
    """A model of the library that learns and is evaluated as `model.Decoder` is.

    ``loss`` is the mean cross-entropy in nats; a mixture of experts adds what its router is kept in order by: the
    library's load-balancing loss times ``router_aux_loss_coef``, and for ``olmoe`` the z-loss
    (`router_z_loss`) times ``router_z_loss_coef``, 0.001 by default. ``lower`` is what PyTorch's
    autocast rounds its operands to (`precision`).
    """

    def __init__(
        self, architecture: Architecture, inner: nn.Module, lower: torch.dtype | None = None
    ) -> None:
        self.config, self.inner, self.lower = architecture, inner, lower
        config: Any = inner.config
        self.balance = float(getattr(config, "router_aux_loss_coef", None) or 0.0)
        z_loss = architecture.settings.get(
            ROUTER_Z, ROUTER_Z_DEFAULT if architecture.name == "olmoe" else 0.0
        )
        self.z_loss = float(z_loss)
        self.asked = {"output_router_logits": True} if self.balance or self.z_loss else {}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By the library's names; a tied table once."""
        return self.inner.named_parameters()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T) int64 -> logits (B, T, V): a head of the library's may scale and cap them."""
        return self.inner(input_ids=tokens, use_cache=False).logits

    def logits(self, hidden: Tensor) -> Tensor:
        """Already there."""
        return hidden

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class. A ``mask`` of what positions see is refused: not every family can be held to one."""
        if mask is not None:
            raise InvalidSpec(
                f"{self.config.name} attends across documents; only named sizes can be kept from it",
                "attend_across_documents",
            )
        with torch.autocast(tokens.device.type, dtype=self.lower, enabled=self.lower is not None):
            found = self.inner(input_ids=tokens, use_cache=False, **self.asked)
        logits = found.logits if self.lower is None else found.logits.float()
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.reshape(-1))
        if self.balance and found.aux_loss is not None:
            loss = loss + self.balance * found.aux_loss
        if self.z_loss:
            loss = loss + self.z_loss * router_z_loss(found.router_logits)
        return loss


@torch.no_grad()
def save(directory: Path, architecture: Architecture, parameters: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` as ``from_pretrained`` reads them. Raises OSError."""
    model = build(architecture, 0)
    for name, parameter in model.named_parameters():
        parameter.copy_(parameters[name])
    try:
        model.save_pretrained(directory, max_shard_size=WHOLE)  # pyright: ignore[reportCallIssue]
    except SafetensorError as error:  # how safetensors reports a full disk
        raise OSError(str(error)) from error
