"""A causal language model of ``transformers``, by the content of its ``config.json``, and its cost. Free of torch.

What can be said without the library is checked here, so that the service refuses it at once; `transformers_model`
lets the library itself have the last word before the first step, and `counting` counts its models.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from proxy_models.errors import InvalidSpec

FIELD = "architecture"
MODEL_TYPES = Path(__file__).with_name("model_types.json")
"""The causal language models that can be trained, by the library's ``model_type``, and their settings."""
ROUTER_Z = "router_z_loss_coef"
"""Ours beside the library's settings of ``olmoe``: the weight of the router's z-loss."""

_SETTINGS = tomllib.loads(Path(__file__).with_name("settings.toml").read_text(encoding="utf-8"))
_NAMES, _LARGEST = _SETTINGS["names"], _SETTINGS["largest"]


@dataclass(frozen=True)
class Architecture:
    """``settings`` as `checked_architecture` gives them, over ``vocabulary_size`` tokens."""

    settings: Mapping[str, Any]
    vocabulary_size: int

    @property
    def name(self) -> str:
        """The library's ``model_type``."""
        return str(self.settings["model_type"])

    def with_vocabulary(self, vocabulary_size: int) -> "Architecture":
        """The same shape over another vocabulary."""
        return replace(self, vocabulary_size=vocabulary_size)


@cache
def _known() -> Mapping[str, frozenset[str]]:
    content = json.loads(MODEL_TYPES.read_text(encoding="utf-8"))
    common = content["common"]
    return {name: frozenset((*common, *own)) for name, own in content["types"].items()}


def is_random(name: str) -> bool:
    """Whether the setting draws from a global generator while training."""
    return any(part in name for part in _SETTINGS["random"])


def checked_architecture(content: object, known_only: bool = True) -> dict[str, Any]:
    """The settings of a ``config.json`` that make its shape, ``model_type`` among them.

    The vocabulary and its special tokens are left out: they are the tokenizer's. Raises `InvalidSpec` naming
    ``architecture.<setting>``: an unknown model type or setting, a size that is none, sizes that do not divide,
    remote code, quantization, dropout (drawn from a global generator: a resumed run would not repeat itself). Of a
    published file (not ``known_only``) unknown settings and dropout are left out instead.
    """
    if not isinstance(content, Mapping):
        raise InvalidSpec("architecture must be an object, the content of a config.json", FIELD)
    kind = content.get("model_type")
    if not isinstance(kind, str):
        raise _refused("model_type", "is missing: the name of a family, such as 'llama'")
    if kind not in _known():
        close = difflib.get_close_matches(kind, _known(), 3) or ["llama", "olmo2", "olmoe", "qwen3"]
        raise _refused(
            "model_type", f"{kind!r} is no causal language model known here, such as {', '.join(close)}"
        )
    settings: dict[str, Any] = {"model_type": kind}
    taken = {*_known()[kind], *_SETTINGS["legacy"], *([ROUTER_Z] if kind == "olmoe" else [])}
    for name, value in content.items():
        if name in _SETTINGS["refused"]:
            raise _refused(name, f"is refused: {_SETTINGS['refused'][name]}")
        if name in _SETTINGS["set_by_us"] or name == "model_type" or (is_random(name) and not known_only):
            continue
        if name not in taken:
            if known_only:
                raise _refused(name, f"is no setting of {kind}{_meant(name, _known()[kind])}")
            continue
        settings[name] = value
    _check_values(settings)
    _check_shape(settings)
    return settings


def _refused(name: str, reason: str) -> InvalidSpec:
    return InvalidSpec(f"architecture.{name} {reason}", f"{FIELD}.{name}")


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_values(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name in _LARGEST and value is not None and not (whole and 1 <= value <= _LARGEST[name]):
            raise _refused(name, f"must be a whole number from 1 to {_LARGEST[name]}, not {value!r}")
        if is_random(name) and value not in (0, None):
            raise _refused(name, "must be 0: what it drops could not be repeated when the run is resumed")
        if name.endswith("loss_coef") and not _is_weight(value):
            raise _refused(name, f"must not be negative, not {value!r}")


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def _check_shape(settings: Mapping[str, Any]) -> None:
    kind = settings["model_type"]
    for names in (_NAMES["width"], _NAMES["layers"]):
        own = [name for name in names if name in _known()[kind]]
        if own and _first(settings, own)[1] is None:
            raise _refused(own[0], f"is missing; the library's default is that of a large {kind}")
    heads_name, heads = _first(settings, _NAMES["heads"])
    width = _first(settings, _NAMES["width"])[1]
    if heads and width and settings.get("head_dim") is None and width % heads:
        raise _refused(heads_name, f"is {heads}, which does not divide the width {width}")
    shared = settings.get("num_key_value_heads")
    if heads and shared and heads % shared:
        raise _refused("num_key_value_heads", f"is {shared}, which does not divide the {heads} heads")
    experts, chosen = _first(settings, _NAMES["experts"])[1], settings.get("num_experts_per_tok")
    if experts and chosen and chosen > experts:
        raise _refused("num_experts_per_tok", f"is {chosen}, more than the {experts} experts")
    kinds, layers = settings.get("layer_types"), _first(settings, _NAMES["layers"])[1]
    if isinstance(kinds, list) and layers and len(kinds) != layers:
        raise _refused("layer_types", f"names {len(kinds)} layers, there are {layers}")


def _first(settings: Mapping[str, Any], names: Iterable[str]) -> tuple[str, int | None]:
    """The first of ``names`` that is given, and its value."""
    return next(
        ((name, settings[name]) for name in names if settings.get(name) is not None),
        (next(iter(names)), None),
    )


@dataclass(frozen=True)
class Counts:
    """Parameters of a model.

    ``non_embedding_parameters`` are those outside the token embedding and the head; ``active_parameters`` those of
    them that a token passes: of routed experts, as many as the router chooses. ``head_parameters`` are the head's,
    tied or not. ``attention`` is layers times the width of all heads, 0 without attention.
    """

    parameters: int
    non_embedding_parameters: int
    active_parameters: int
    head_parameters: int
    attention: int

    def flops_per_token(self, sequence_length: int) -> int:
        """Training FLOPs per token: 6 per weight passed, the head's included, and 6 L T w for causal attention."""
        weights = self.active_parameters + self.head_parameters
        return 6 * weights + 6 * self.attention * sequence_length


@dataclass(frozen=True)
class CountsByVocabulary:
    """The counts of one architecture over any vocabulary: tables have a row for each token, nothing else grows.

    ``positions`` are the settings, by name, that say how many tokens it can see at once.
    """

    without: Counts
    per_token: Counts
    positions: Mapping[str, int]

    @classmethod
    def through(
        cls, one: tuple[int, Counts], other: tuple[int, Counts], positions: Mapping[str, int]
    ) -> "CountsByVocabulary":
        """From the counts over two vocabularies. Raises ValueError where no whole rows lie between them."""
        (fewer, few), (more, many) = one, other
        per_token, without = {}, {}
        for name, low in asdict(few).items():
            per_token[name], rest = divmod(asdict(many)[name] - low, more - fewer)
            without[name] = low - fewer * per_token[name]
            if rest:
                raise ValueError(f"{name} grows with the vocabulary, but not by whole rows")
        return cls(Counts(**without), Counts(**per_token), positions)

    def over(self, vocabulary_size: int) -> Counts:
        """The counts with that many tokens."""
        return Counts(
            *(
                getattr(self.without, field.name) + vocabulary_size * getattr(self.per_token, field.name)
                for field in fields(Counts)
            )
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "CountsByVocabulary":
        """From its ``asdict``. Raises KeyError and TypeError where it is something else."""
        return cls(Counts(**content["without"]), Counts(**content["per_token"]), dict(content["positions"]))


def check_positions(positions: Mapping[str, int], sequence_length: int) -> None:
    """Raise `InvalidSpec` where a model that sees so many tokens is to be trained on longer rows."""
    for name, known in positions.items():
        if known < sequence_length:
            raise InvalidSpec(
                f"architecture.{name} is {known}, below the sequence_length of {sequence_length}",
                f"architecture.{name}",
            )
