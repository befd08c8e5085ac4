"""What a finished run measured, as the store keeps it: the one reader of `store.tables.Run.result`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mixing.document import from_document


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What training answered, without its series; of a program of the operator's only how it ended.

    Attributes:
        final: each task's metric after the last step.
        further: the other metric of tasks with choices.
        noise: standard deviation of either over the run's evaluations, where it has two or more.
        realised_tokens: what was trained on by domain, and `tokens` all of it; None before the run has ended.
        seconds: of training, in all attempts.
        parameters, non_embedding_parameters: of the model.
        exit_status: of a program.
    """

    final: Mapping[str, float] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    realised_tokens: Mapping[str, int] | None = None
    tokens: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    non_embedding_parameters: int | None = None
    exit_status: int | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> "Measurements":
        """Of a run's result; with nothing in it where there is none yet."""
        given = stored or {}
        return from_document(cls, {name: value for name, value in given.items() if value is not None})

    @property
    def metrics(self) -> dict[str, float]:
        """Every metric by name."""
        return {**self.final, **self.further}

    @property
    def realised_weights(self) -> dict[str, float] | None:
        """Counted tokens per domain as fractions."""
        if not self.realised_tokens:
            return None
        total = sum(self.realised_tokens.values())
        return {name: tokens / total for name, tokens in self.realised_tokens.items()}
