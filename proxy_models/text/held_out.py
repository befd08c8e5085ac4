"""Which documents are held out, and which of those are evaluated. Free of torch.

The side of a document depends on a SHA-256 of its text alone: exact duplicates fall on one side in every file of
every domain, and no later addition of files moves a document. The same digest orders the held-out documents, so
the part that is evaluated is a fixed sample too.

A few long documents may all fall on the training side. Such a domain holds out those of the smallest digests, as many
as make up the fraction of its text, and of a long one only the beginning (`held_out_split`). A domain of so little
text that a slice would be most of it holds out nothing: it is trained on, and its own slice is not measured.
"""

import hashlib
from collections.abc import Iterable, Mapping
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


MOST_BEGINNINGS = 4096
"""Documents that a domain holds out by their order; each has a byte, so that they reach `MINIMUM_BYTES`."""


@dataclass(frozen=True)
class HeldOutSplit:
    """What of each document of a domain is never trained on.

    Attributes:
        fraction: of all digests that is held out whole.
        beginnings: bytes held out of the documents of these digests, where whole documents came to too little.
    """

    fraction: float
    beginnings: Mapping[bytes, int] = field(default_factory=dict)

    def divide(self, digest: bytes, text: str) -> tuple[str, str]:
        """What of a document is held out and what is trained on; together they are the text, and one may be empty."""
        if digest in self.beginnings:
            held_out = beginning(text, self.beginnings[digest])
            return held_out, text[len(held_out) :]
        return (text, "") if is_held_out(digest, self.fraction) else ("", text)


def held_out_split(
    documents: Iterable[str], fraction: float, minimum_bytes: int = MINIMUM_BYTES
) -> HeldOutSplit:
    """The split of a domain: whole documents by their digests alone, where that holds out `minimum_bytes`.

    Else the documents of the smallest digests, up to ``fraction`` of the text or `minimum_bytes`; the last of them
    with its beginning only where that is less than half of it, and never more than half of what is there, copies
    aside. Less than twice `minimum_bytes` holds out nothing. Neither the order of documents nor their files play a
    part. Reads no further than it must: of a large domain only a little.
    """
    sizes: dict[bytes, int] = {}
    total = held_out = 0
    for text in documents:
        digest, size = document_digest(text), len(text.encode())
        total += size
        if is_held_out(digest, fraction):
            held_out += size
            if held_out >= minimum_bytes and held_out < total:
                return HeldOutSplit(fraction)
        sizes[digest] = size
        if len(sizes) > 2 * MOST_BEGINNINGS:
            sizes = dict(sorted(sizes.items())[:MOST_BEGINNINGS])
    if minimum_bytes <= held_out < total:
        return HeldOutSplit(fraction)
    most = sum(sizes.values()) // 2
    if most < minimum_bytes:
        return HeldOutSplit(0.0)
    missing = min(max(minimum_bytes, round(fraction * total)), most)
    beginnings: dict[bytes, int] = {}
    for digest, size in sorted(sizes.items())[:MOST_BEGINNINGS]:
        if missing <= 0:
            break
        beginnings[digest] = size if size <= min(2 * missing, most) else missing
        missing -= beginnings[digest]
        most -= beginnings[digest]
    # By their digests alone others would be held out too, which may be all that is left to train on.
    return HeldOutSplit(0.0, beginnings)


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


# Which text a domain is, whatever files it lies in: a key that adds up over the parts of a split. Free of torch.
#
# The key is the sum modulo 2^256 of the SHA-256 digests of all documents
# (`proxy_models.text.held_out.document_digest`), training and held-out. Addition forgets the order of documents,
# their files and formats, and keeps how often each occurs; so the keys of a domain's parts add up to its own. It
# tells texts apart that differ by chance or by work, and is no defence against somebody who constructs a
# collision: sums of hashes can be made to meet (Wagner 2002).

_MODULUS = 2**256


@dataclass
class ContentKey:
    """A sum of document digests under way."""

    total: int = 0

    def add(self, digest: bytes) -> None:
        """Count a document in, by its 32-byte digest."""
        self.total = (self.total + int.from_bytes(digest, "big")) % _MODULUS

    @property
    def hexadecimal(self) -> str:
        """The key of the documents so far: 64 hexadecimal digits."""
        return f"{self.total:064x}"
