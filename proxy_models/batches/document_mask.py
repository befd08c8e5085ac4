"""Attention within documents: which position may see which in rows that were cut from documents end to end.

A document begins at each end-of-text token, as in evaluation; a row's tokens before its first one are the rest of a
document that began in no row or another.
"""

from torch import Tensor

from proxy_models.config import TrainingConfig
from proxy_models.errors import InvalidSpec


def document_mask(tokens: Tensor, end_of_text: int) -> Tensor:
    """Causal and block-diagonal: tokens (..., T) int64 -> (rows, 1, T, T), true where a query (row) sees a key.

    Asks the host nothing, so that a CUDA graph can hold it. It takes T bytes a token, and four times that as the
    floating-point mask PyTorch's attention makes of it.
    """
    documents = (tokens.flatten(0, -2) == end_of_text).cumsum(-1)
    same = documents.unsqueeze(2) == documents.unsqueeze(1)
    return same.tril().unsqueeze(1)


class Documents:
    """The mask of a training run's batches, or none. ``end_of_text`` is the shards', known after their opening."""

    def __init__(self, training: TrainingConfig) -> None:
        self.across = training.attend_across_documents
        self.end_of_text: int | None = None

    def mask(self, tokens: Tensor) -> Tensor | None:
        """`document_mask`, or None where attention goes across. Raises `InvalidSpec` without ``end_of_text``."""
        if self.across:
            return None
        if self.end_of_text is None:
            raise InvalidSpec(
                "attention within documents needs the token that documents begin at",
                "attend_across_documents",
            )
        return document_mask(tokens, self.end_of_text)
