"""What training and evaluation ask of a model, whoever wrote it."""

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor


class Vocabulary(Protocol):
    """A shape; all that is asked of it is how many tokens it knows."""

    @property
    def vocabulary_size(self) -> int:
        """V."""
        ...


class LanguageModel(Protocol):
    """A causal language model: `model.Decoder`, or one of ``transformers`` (`families.transformers_model`)."""

    @property
    def config(self) -> Vocabulary:
        """Its shape."""
        ...

    def __call__(self, tokens: Tensor) -> Any:
        """Tokens (B, T) int64 -> what `logits` takes, (B, T, ...), each position from those up to it."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Positions of what the call gave, (n, ...) -> (n, V)."""
        ...

    def loss(self, tokens: Tensor, targets: Tensor, mask: Tensor | None = None) -> Tensor:
        """What training lowers: tokens and targets (B, T) int64 -> scalar; ``mask`` as in `document_mask`."""
        ...

    def named_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """What training moves, by name."""
        ...
