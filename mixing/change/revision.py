"""The domains of a revision, what became of them in the next one, and whether the parts of a split, or the sources of
a merge, hold together what they should.

`mixing.change.diff` finds the changes, `mixing.change.patch` makes them, and `mixing.change.lineage` turns them into
maps between the simplices of the revisions.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from mixing.document import Documented
from mixing.domains import check_names
from mixing.errors import InvalidContent, InvalidTokens, MergeMismatch, SplitMismatch


@dataclass(frozen=True)
class Leaf:
    """A domain of one revision.

    Attributes:
        tokens: N_j, or None while nobody has counted them.
        content: equal keys are the same text, different keys are different text; None where nobody knows. Keys of 64
            hexadecimal digits add up as well (`combined`).

    >>> Leaf(6e9, content="the key of its text").tokens
    6000000000.0
    """

    tokens: float | None = None
    content: str | None = None


Leaves = Mapping[str, Leaf]
"""The domains of one revision by name."""


def check_leaves(leaves: Leaves) -> None:
    """Pass if the names make a tree and every count that is known is a number of tokens.

    Raises:
        InvalidDomainName: malformed, or `a` beside `a:b`.
        InvalidTokens: a count that is not positive and finite.
    """
    check_names(leaves)
    for name, leaf in leaves.items():
        if leaf.tokens is not None and not (math.isfinite(leaf.tokens) and leaf.tokens > 0):
            raise InvalidTokens(
                f"domain {name!r} has {leaf.tokens} tokens; it needs more than 0, or None while nobody has counted",
                field="tokens",
                names=[name],
            )


@dataclass(frozen=True)
class Changes(Documented):
    """What became of every domain of the older revision, and where every domain of the newer one comes from.

    Attributes:
        kept: `{new name: old name}` of the domains whose text is the same; a rename has two different names.
        revised: `{new name: old name}` of the domains that hold another text now.
        added: new names without a predecessor.
        removed: old names without a successor.
        split: `{old name: new names}`; the parts hold together the parent's text.
        merged: `{new name: old names}`; the new domain holds together their text.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    revised: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    split: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def affected(self) -> tuple[str, ...]:
        """New names, sorted, of every domain that is not simply kept."""
        parts: Iterable[str] = (part for parts in self.split.values() for part in parts)
        return tuple(sorted({*self.revised, *self.added, *self.merged, *parts}))

    @property
    def renamed(self) -> dict[str, str]:
        """`{new name: old name}` of the kept domains that are called otherwise now."""
        return {new: old for new, old in self.kept.items() if new != old}


# Content keys that add up: the key of a union of documents is the sum of the keys of its parts.
#
# A key of 64 lowercase hexadecimal digits is a number modulo 2^256: the sum of the SHA-256 digests of the documents a
# domain holds. The order of the documents and the files they stand in do not matter, so a split can be recognised by
# arithmetic: the parts' keys sum to the parent's. (Sums of hashes: Bellare and Micciancio, A New Paradigm for
# Collision-Free Hashing, 1997. They tell honest texts apart; they do not keep out somebody who forges documents.)
#
# Any other key says only whether two texts are equal. A digest that does not add up must therefore not look like one
# that does: write it with its kind before it, such as `sha256:...`.

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


TOLERANCE = 0.01
"""Largest relative difference of the token counts, where they have to decide: counts are often estimates."""


def check_split(parent: str, whole: Leaf, parts: Leaves, field: str) -> None:
    """Pass if the parts can be the parent's text.

    Contents decide where all are known and add up; else the token counts, within 1%; where one of these is unknown,
    nothing speaks against the split.

    Raises:
        SplitMismatch: they are not together the parent.
    """
    if difference := _difference(whole, parts):
        raise SplitMismatch(
            f"the parts of {parent!r} ({_listed(parts)}) do not add up to it: {difference}. Say 'separate' (it is"
            " removed and they are new), or revise the parent first, so that it holds what the parts hold",
            field=field,
            names=[parent, *parts],
            parts=total_tokens(parts),
            whole=whole.tokens,
        )


def check_merge(name: str, whole: Leaf, sources: Leaves, field: str) -> None:
    """`check_split` the other way round.

    Raises:
        MergeMismatch: the sources are not together the merged domain.
    """
    if difference := _difference(whole, sources):
        raise MergeMismatch(
            f"{_listed(sources)} do not add up to {name!r}, which should be merged from them: {difference}. Say"
            " 'separate' (they are removed and it is new), or revise them first, so that they hold what it holds",
            field=field,
            names=[name, *sources],
            parts=total_tokens(sources),
            whole=whole.tokens,
        )


def total_tokens(leaves: Leaves) -> float | None:
    """The sum of the counts, None where one is unknown."""
    counts = [leaf.tokens for leaf in leaves.values()]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    # Counts are integers, and a sum of integers says exactly what was given.
    return sum(known) if all(isinstance(count, int) for count in known) else math.fsum(known)


def total_content(leaves: Leaves) -> str | None:
    """The key of all texts together, None where one is unknown or does not add up."""
    contents = [leaf.content for leaf in leaves.values()]
    additive = [content for content in contents if is_additive(content)]
    return combined(additive) if len(additive) == len(contents) else None


def _difference(whole: Leaf, parts: Leaves) -> str | None:
    """What does not add up, in words, or None."""
    counts = _count_difference(whole.tokens, total_tokens(parts))
    content = total_content(parts)
    if content is None or not is_additive(whole.content):
        return counts
    if content == whole.content:
        return None
    return f"their texts differ{f' ({counts})' if counts else ''}"


def _count_difference(whole: float | None, parts: float | None) -> str | None:
    if whole is None or parts is None or abs(parts - whole) <= TOLERANCE * whole:
        return None
    return f"{parts:,} tokens together against {whole:,}, {parts / whole - 1:+.2%}"


def _listed(leaves: Leaves) -> str:
    names = sorted(leaves)
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
