"""A mixture: weights over domains, keyed by name and never by position."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np

from mixing.errors import InvalidWeights, MissingDomain, UnknownDomain

SUM_TOLERANCE = 1e-6


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
    def of(cls, weights: Mapping[str, float], tolerance: float = SUM_TOLERANCE) -> Self:
        """A mixture from weights whose sum differs from 1 by at most `tolerance`, kept as they are.

        Raises:
            InvalidWeights: a weight is negative or not finite (named), or the sum is off.
        """
        values = {name: float(weight) for name, weight in weights.items()}
        for name, value in values.items():
            if not math.isfinite(value) or value < 0:
                raise InvalidWeights(
                    f"the weight of {name!r} is {value}; it must be a number of at least 0",
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
        return np.array([self._weights[name] for name in names])

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
