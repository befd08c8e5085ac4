"""Domains: the leaves of one revision's tree, by name, with their token counts."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.errors import DuplicateDomain, InvalidDomainName, InvalidTokens, MissingDomain
from mixing.mixture import Mixture

MAXIMUM_NAME_LENGTH = 200
_PART = re.compile(r"\w[\w.+&@-]*")


def parse_name(name: str) -> tuple[str, ...]:
    """Split `source[:topic[:quality]]` into its one to three parts.

    A part starts with a letter, digit or underscore and goes on with these or any of `. + & @ -`.

    Raises:
        InvalidDomainName: the name has another form, or is longer than 200 characters.
    """
    parts = tuple(name.split(":"))
    if len(name) > MAXIMUM_NAME_LENGTH or len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidDomainName(
            f"{name[:MAXIMUM_NAME_LENGTH]!r} is not a domain name: write source, source:topic or"
            " source:topic:quality, each part of letters, digits and _ . + & @ -",
            field="name",
            names=[name],
        )
    return parts


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names in canonical (sorted) order, once each is well-formed, unique and a leaf.

    Raises:
        InvalidDomainName: malformed, or `a` beside `a:b` (a leaf cannot have domains under it).
        DuplicateDomain: a name appears twice.
    """
    listed = list(names)
    seen: dict[str, tuple[str, ...]] = {}
    for name in listed:
        if name in seen:
            raise DuplicateDomain(f"domain {name!r} is named twice", field="name", names=[name])
        seen[name] = parse_name(name)
    for name, parts in seen.items():
        for depth in range(1, len(parts)):
            parent = ":".join(parts[:depth])
            if parent in seen:
                raise InvalidDomainName(
                    f"domain {parent!r} has {name!r} under it, so it cannot hold text of its own; give its"
                    f" text a name such as {parent + ':other'!r}",
                    field="name",
                    names=[parent, name],
                )
    return tuple(sorted(seen))


@dataclass(frozen=True, eq=False)
class Domains:
    """The domains of one revision in canonical order.

    Attributes:
        names: (m,) domain names, sorted.
        tokens: (m,) available tokens N_j, read-only, same order.

    >>> domains = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
    >>> domains.names
    ('books', 'code', 'web')
    >>> domains.natural()
    Mixture({'books': 0.1, 'code': 0.3, 'web': 0.6})
    """

    names: tuple[str, ...]
    tokens: np.ndarray

    @classmethod
    def of(cls, tokens: Mapping[str, int | float | None]) -> Self:
        """Domains from `{name: available tokens}`, in any order.

        Raises:
            InvalidDomainName: a malformed name.
            InvalidTokens: a count that is unknown (None), or not positive and finite: an empty or missing domain
                is never a silent zero.
        """
        if not tokens:
            raise MissingDomain("a domain set needs at least one domain", field="domains")
        names = check_names(tokens)
        counts = np.array([tokens[name] for name in names], dtype=float)
        for name, count in zip(names, counts, strict=True):
            if not (np.isfinite(count) and count > 0):
                raise InvalidTokens(
                    f"domain {name!r} has {tokens[name]} tokens; it needs more than 0",
                    field="tokens",
                    names=[name],
                )
        counts.setflags(write=False)
        return cls(names, counts)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def natural_weights(self) -> np.ndarray:
        """(m,) weights proportional to the available tokens."""
        return self.tokens / self.tokens.sum()

    def natural(self) -> Mixture:
        """The natural distribution: weights proportional to N_j."""
        return Mixture.of(dict(zip(self.names, self.natural_weights.tolist(), strict=True)))

    def mixture(self, weights: np.ndarray) -> Mixture:
        """The mixture of (m,) weights given in canonical order."""
        return Mixture.of(dict(zip(self.names, np.asarray(weights, float).tolist(), strict=True)))
