"""Domains, the leaves of one revision's tree with their token counts, and mixtures, weights over them by name."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mixing.errors import (
    DuplicateDomain,
    InvalidDomainName,
    InvalidTokens,
    InvalidWeights,
    MissingDomain,
    UnknownDomain,
    as_number,
    shown,
)

SUM_TOLERANCE = 1e-6
HELD_OUT_PREFIX = "held-out/"
"""Before a domain's name: the task that is the domain's own held-out slice."""


class Mixture(Mapping[str, float]):
    """An immutable mapping of domain name to weight: non-negative, summing to 1. Make one with `Mixture.of`.

    >>> mixture = Mixture.of({"web": 0.75, "code": 0.25})
    >>> mixture["code"]
    0.25
    >>> mixture.align(["web", "code"])
    array([0.75, 0.25])
    """

    __slots__ = ("_weights",)

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = {name: weights[name] for name in sorted(weights)}

    @classmethod
    def of(
        cls, weights: Mapping[str, float], tolerance: float = SUM_TOLERANCE, over: Sequence[str] | None = None
    ) -> Self:
        """A mixture from weights whose sum differs from 1 by at most `tolerance`, kept as they are.

        Args:
            weights: by name.
            tolerance: of their sum.
            over: the domains it must be of; a name that is wrong or left out is told before the sum, which it breaks.

        Raises:
            InvalidWeights: a weight is negative or not finite (named), or the sum is off.
            UnknownDomain, MissingDomain: as `align`.
        """
        if over is not None:
            cls(weights).check_names(over)
        values = {name: as_number(weight) for name, weight in weights.items()}
        for name, value in values.items():
            if not math.isfinite(value) or value < 0:
                raise InvalidWeights(
                    f"the weight of {name!r} is {shown(weights[name])}; it must be a number of at least 0",
                    field="weights",
                    names=[name],
                )
        total = math.fsum(values.values())
        if abs(total - 1) > tolerance:
            raise InvalidWeights(
                f"the weights sum to {total:.9g}, not 1 (tolerance {tolerance:g}); divide each by their sum",
                field="weights",
            )
        return cls(values)

    def align(self, names: Sequence[str]) -> np.ndarray:
        """(len(names),) weights in the order of `names`, which must be exactly this mixture's domains.

        Raises:
            UnknownDomain: the mixture has a domain that `names` lacks.
            MissingDomain: `names` has a domain that the mixture lacks (write 0 to leave it out).
        """
        self.check_names(names)
        return np.array([self._weights[name] for name in names])

    def check_names(self, names: Sequence[str]) -> None:
        """Raise as `align` where its domains are not these."""
        known = set(names)
        if unknown := [name for name in self if name not in known]:
            raise UnknownDomain(
                f"the mixture names domains the set does not have: {', '.join(unknown)}",
                field="weights",
                names=unknown,
            )
        if missing := [name for name in names if name not in self._weights]:
            raise MissingDomain(
                f"the mixture lacks a weight for {', '.join(missing)}; write 0 to leave a domain out",
                field="weights",
                names=missing,
            )

    def as_dict(self) -> dict[str, float]:
        """A plain dict, in sorted order of the names."""
        return dict(self._weights)

    def __getitem__(self, name: str) -> float:
        return self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(tuple(self._weights.items()))

    def __repr__(self) -> str:
        return f"Mixture({self._weights!r})"


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
        unique: (m,) how many of them are of different documents; None where nothing is known of copies.
        shared: the sets of domains that hold the same text.

    >>> domains = Domains.of({"web": 6e9, "code": 3e9, "books": 1e9})
    >>> domains.names
    ('books', 'code', 'web')
    >>> domains.natural()
    Mixture({'books': 0.1, 'code': 0.3, 'web': 0.6})
    """

    names: tuple[str, ...]
    tokens: np.ndarray
    unique: np.ndarray | None = None
    shared: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(
        cls,
        tokens: Mapping[str, int | float | None],
        unique: Mapping[str, float] | None = None,
        shared: tuple[tuple[str, ...], ...] = (),
    ) -> Self:
        """Domains from `{name: available tokens}`, in any order.

        Args:
            tokens: of every domain.
            unique: the share of a domain's tokens that are of different documents, where it has copies.
            shared: the sets of domains that hold the same text.

        Raises:
            InvalidDomainName: a malformed name.
            InvalidTokens: a count that is unknown (None), or not positive and finite: an empty or missing domain
                is never a silent zero.
        """
        if not tokens:
            raise MissingDomain("a domain set needs at least one domain", field="domains")
        names = check_names(tokens)
        counts = np.array([as_number(tokens[name]) for name in names])
        for name, count in zip(names, counts, strict=True):
            if not (np.isfinite(count) and count > 0):
                raise InvalidTokens(
                    f"domain {name!r} has {shown(tokens[name])} tokens; it needs more than 0",
                    field="tokens",
                    names=[name],
                )
        counts.setflags(write=False)
        different = None if not unique else counts * [unique.get(name, 1.0) for name in names]
        return cls(names, counts, different, shared)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unique_tokens(self) -> np.ndarray:
        """(m,) tokens of different documents: how much text there is to read before any of it is repeated."""
        return self.tokens if self.unique is None else self.unique

    @property
    def natural_weights(self) -> np.ndarray:
        """(m,) weights proportional to the available tokens."""
        return self.tokens / self.tokens.sum()

    def natural(self) -> Mixture:
        """The natural distribution: weights proportional to N_j."""
        return self.mixture(self.natural_weights)

    def mixture(self, weights: np.ndarray) -> Mixture:
        """The mixture of (m,) weights given in canonical order."""
        return Mixture.of(dict(zip(self.names, np.asarray(weights, float).tolist(), strict=True)))
