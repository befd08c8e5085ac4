"""Content keys that add up: the key of a union of documents is the sum of the keys of its parts.

A key of 64 lowercase hexadecimal digits is a number modulo 2^256: the sum of the SHA-256 digests of the documents a
domain holds. The order of the documents and the files they stand in do not matter, so a split can be recognised by
arithmetic: the parts' keys sum to the parent's. (Sums of hashes: Bellare and Micciancio, A New Paradigm for
Collision-Free Hashing, 1997. They tell honest texts apart; they do not keep out somebody who forges documents.)

Any other key says only whether two texts are equal. A digest that does not add up must therefore not look like one
that does: write it with its kind before it, such as `sha256:...`.
"""

import re
from collections.abc import Iterable
from typing import TypeGuard

from mixing.errors import InvalidContent

_MODULUS = 1 << 256
_ADDITIVE = re.compile(r"[0-9a-f]{64}")


def is_additive(content: str | None) -> TypeGuard[str]:
    """Whether the key is known and one that adds up."""
    return content is not None and _ADDITIVE.fullmatch(content) is not None


def combined(contents: Iterable[str]) -> str:
    """The key of the union of the texts with these keys; of no text at all it is 64 zeros.

    Raises:
        InvalidContent: a key is not one that adds up.
    """
    total = 0
    for content in contents:
        if not is_additive(content):
            raise InvalidContent(
                f"content {content!r} does not add up: write 64 lowercase hexadecimal digits", field="content"
            )
        total += int(content, 16)
    return format(total % _MODULUS, "064x")


def remainder(whole: str, part: str) -> str:
    """The key of what is left of `whole` without `part`; both additive."""
    return format((int(whole, 16) - int(part, 16)) % _MODULUS, "064x")
