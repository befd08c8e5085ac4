"""How a stored order says that a model is trained."""

from collections.abc import Mapping
from typing import Any, Final

SAID_LATER: Final[Mapping[str, Any]] = {
    "attend_across_documents": True,
    "precision": "float32",
    "warmup_fraction": None,
    "floor_fraction": 0.05,
    "weight_decay": 0.1,
}
"""Settings that could not be chosen at first, and what orders that do not have them were trained with."""

TRAINING: Final = ("tokens", "sequence_length", "batch_rows", "learning_rate", "evaluations", *SAID_LATER)
"""The fields of `proxy_models.config.TrainingConfig` that an order chooses; the seed is each run's own."""


def training_values(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What the order says, or meant before it could be said, of each of `TRAINING`; a program's says little."""
    said = {**SAID_LATER, **stored}
    return {name: said[name] for name in TRAINING if name in said}
