"""The domains of a revision, and what became of them in the next one.

`mixing.change.diff` finds the changes, `mixing.change.patch` makes them, and `mixing.change.lineage` turns them into
maps between the simplices of the revisions.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from mixing.domains import check_names
from mixing.errors import InvalidTokens


@dataclass(frozen=True)
class Leaf:
    """A domain of one revision.

    Attributes:
        tokens: N_j, or None while nobody has counted them.
        content: equal keys are the same text, different keys are different text; None where nobody knows. Keys of 64
            hexadecimal digits add up as well (`mixing.change.conservation`).

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
class Changes:
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

    def to_dict(self) -> dict[str, Any]:
        """JSON: the attributes by name."""
        return {
            "kept": dict(self.kept),
            "revised": dict(self.revised),
            "added": list(self.added),
            "removed": list(self.removed),
            "split": {name: list(parts) for name, parts in self.split.items()},
            "merged": {name: list(parts) for name, parts in self.merged.items()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The changes `to_dict` wrote."""
        return cls(
            kept=dict(document["kept"]),
            revised=dict(document["revised"]),
            added=tuple(document["added"]),
            removed=tuple(document["removed"]),
            split={name: tuple(parts) for name, parts in document["split"].items()},
            merged={name: tuple(parts) for name, parts in document["merged"].items()},
        )
