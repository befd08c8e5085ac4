"""Which documents are held out, and which of those are evaluated. Free of torch.

The side of a document depends on a SHA-256 of its text alone: exact duplicates fall on one side in every file of
every domain, and no later addition of files moves a document. The same digest orders the held-out documents, so
the part that is evaluated is a fixed sample too.
"""

import hashlib
from dataclasses import dataclass, field

MINIMUM_BYTES = 1024
"""Least text a held-out slice must have to say anything about its domain."""

_LABEL = b"mixwright held-out slice\0"

PARTS = 8
"""No document fills more than this fraction of the evaluated slice: one book must not be all of it."""


def document_digest(text: str) -> bytes:
    """SHA-256 of a label of our own and the text's UTF-8 bytes.

    Corpora are often cut to size by the smallest plain hash of each document. Without the label such a corpus would
    lie on the held-out side almost whole.
    """
    return hashlib.sha256(_LABEL + text.encode()).digest()


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Whether the document of this digest is never trained on; true for ``fraction`` of all digests."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


@dataclass
class EvaluationSlice:
    """Keeps the held-out documents of the smallest digests, about ``size_bytes`` of them, each once.

    A document longer than ``size_bytes / PARTS`` counts with its beginning only.
    """

    size_bytes: int
    kept: dict[bytes, tuple[str, list[int] | None]] = field(default_factory=dict)
    held_bytes: int = 0

    def add(self, digest: bytes, text: str, tokens: list[int] | None = None) -> None:
        """Offer a document; ``tokens`` are its ids where they came with it (pre-tokenized), else None."""
        if digest in self.kept:
            return
        self.kept[digest] = (text, tokens)
        self.held_bytes += len(text.encode())
        if self.held_bytes > 4 * self.size_bytes:
            self._prune()

    def _prune(self) -> None:
        self.kept = dict(self.documents_by_digest())
        self.held_bytes = sum(len(text.encode()) for text, _ in self.kept.values())

    @property
    def part_bytes(self) -> int:
        """The longest beginning of a document that is evaluated."""
        return max(1, self.size_bytes // PARTS)

    def documents_by_digest(self) -> list[tuple[bytes, tuple[str, list[int] | None]]]:
        """The documents to evaluate, whole, in the order of their digests."""
        chosen, total = [], 0
        for digest in sorted(self.kept):
            if total >= self.size_bytes:
                break
            chosen.append((digest, self.kept[digest]))
            total += min(self.part_bytes, len(self.kept[digest][0].encode()))
        return chosen


def beginning(text: str, size_bytes: int) -> str:
    """The longest prefix of at most ``size_bytes`` UTF-8 bytes (at least one character)."""
    encoded = text.encode()
    if len(encoded) <= size_bytes:
        return text
    return encoded[:size_bytes].decode(errors="ignore") or text[:1]
