"""Which text a domain is, whatever files it lies in: a key that adds up over the parts of a split. Free of torch.

The key is the sum modulo 2^256 of the SHA-256 digests of all documents
(`proxy_models.text.held_out.document_digest`),
training and held-out. Addition forgets the order of documents, their files and formats, and keeps how often each
occurs; so the keys of a domain's parts add up to its own. It tells texts apart that differ by chance or by work, and
is no defence against somebody who constructs a collision: sums of hashes can be made to meet (Wagner 2002).
"""

from collections.abc import Iterable
from dataclasses import dataclass

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


def content_key(digests: Iterable[bytes]) -> str:
    """The key of the documents of these digests, in any order."""
    key = ContentKey()
    for digest in digests:
        key.add(digest)
    return key.hexadecimal
