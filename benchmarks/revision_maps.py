"""Mixtures of an older revision over the domains of a newer one: changes as maps between simplices.

A kept, renamed or revised domain keeps its weight, the parts of a split share their parent's at their natural ratios,
a merged domain has the weights of its sources, and an added one has none. A removed domain has no column: a mixture
that gives it weight has no exact counterpart, and what is left is renormalised with the share lost beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mixing.change.revision import Changes, Leaves
from mixing.domains import Mixture
from mixing.errors import InvalidTokens, InvalidWeights, MissingDomain, UnknownDomain
from mixing.simplex_map import SimplexMap


@dataclass(frozen=True)
class Step:
    """One revision to the next."""

    changes: Changes
    old: Leaves
    new: Leaves


def carry(changes: Changes, old: Leaves, new: Leaves) -> SimplexMap:
    """The map from the domains of `old` that have a successor (columns) to those of `new` (rows), both sorted.

    Consecutive maps compose with `@` unless the later change removes a domain; `carry_along` composes any.

    Raises:
        InvalidTokens: a part of a split has not been counted.
        UnknownDomain: the changes name a domain that its revision does not have.
        MissingDomain: the changes leave out a domain of either revision.
    """
    _check_names(changes, old, new)
    columns = _successors(changes, new)
    rows = {name: row for row, name in enumerate(sorted(new))}
    free = tuple(sorted(columns))
    matrix = np.zeros((len(rows), len(free)))
    for column, name in enumerate(free):
        for successor, share in columns[name].items():
            matrix[rows[successor], column] = share
    return SimplexMap(tuple(rows), free, matrix)


def carry_along(steps: Sequence[Step]) -> SimplexMap:
    """The map from the first step's older revision to the last one's newer, exact for every mixture it takes.

    Columns are the domains all of whose text is still there in the end: what a later step removed has none, nor has
    a domain that was split when one of its parts was removed.

    Raises:
        MissingDomain: no steps.
        UnknownDomain, MissingDomain, InvalidTokens: as for `carry`, or a step does not start where the one before
            it ended.
    """
    if not steps:
        raise MissingDomain("a chain of revisions needs at least one step", field="steps")
    whole = carry(steps[0].changes, steps[0].old, steps[0].new)
    for before, step in pairwise(steps):
        _same_names(step.old, before.new, "older")
        following = carry(step.changes, step.old, step.new)
        whole = following @ restrict(whole, following.free)
    return whole


def restrict(map_: SimplexMap, leaves: Iterable[str]) -> SimplexMap:
    """The map onto some of its rows, with those columns that have no weight anywhere else.

    Raises:
        UnknownDomain: a leaf that the map has no row for.
    """
    kept = tuple(leaves)
    row_of = {name: row for row, name in enumerate(map_.leaves)}
    if unknown := sorted(set(kept) - set(row_of)):
        raise UnknownDomain(f"the map has no row for {', '.join(unknown)}", names=unknown)
    rows = [row_of[name] for name in kept]
    dropped = np.ones(len(map_.leaves), dtype=bool)
    dropped[rows] = False
    columns = np.flatnonzero(~(map_.matrix[dropped] > 0).any(axis=0))
    free = tuple(map_.free[column] for column in columns)
    return SimplexMap(kept, free, map_.matrix[rows][:, columns])


def carried(map_: SimplexMap, mixture: Mapping[str, float]) -> tuple[Mixture, float]:
    """A mixture of the older revision over the newer one's domains, and the share of it that was lost.

    Args:
        map_: from `carry`; domains of the mixture that it has no column for were removed.
        mixture: weights by name, over all domains of the older revision.

    Returns:
        The weights, renormalised to sum 1, and in [0, 1) the weight of the domains that were removed.

    Raises:
        MissingDomain: the mixture lacks a domain that the map starts from.
        InvalidWeights: nothing is left.
    """
    weights = Mixture.of(mixture)
    left = {name: weights[name] for name in map_.free if name in weights}
    kept = Mixture(left).align(map_.free)
    total = float(kept.sum())
    if total <= 0:
        removed = [name for name, weight in weights.items() if weight > 0]
        raise InvalidWeights(
            f"the whole mixture lies on domains that were removed: {', '.join(removed)}; start from another one",
            field="weights",
            names=removed,
        )
    expanded = map_.expand(kept / total)
    lost = sum(weight for name, weight in weights.items() if name not in left)
    return Mixture.of(dict(zip(map_.leaves, expanded.tolist(), strict=True))), lost


def carried_along(steps: Sequence[Step], mixture: Mapping[str, float]) -> tuple[Mixture, float]:
    """`carried` step by step; the share lost counts against the mixture at the beginning.

    Unlike the one map of `carry_along`, this carries the part that survives of a domain that was split and then lost
    some of its parts.

    Raises:
        UnknownDomain, MissingDomain, InvalidTokens, InvalidWeights: as for `carry` and `carried`.
    """
    weights, left = Mixture.of(mixture), 1.0
    for step in steps:
        weights.align(sorted(step.old))
        weights, lost = carried(carry(step.changes, step.old, step.new), weights)
        left *= 1 - lost
    return weights, 1 - left


def _successors(changes: Changes, new: Leaves) -> dict[str, dict[str, float]]:
    """`{old name: {new name: share}}`."""
    columns = {old: {name: 1.0} for name, old in (*changes.kept.items(), *changes.revised.items())}
    for name, sources in changes.merged.items():
        columns |= {source: {name: 1.0} for source in sources}
    for parent, parts in changes.split.items():
        counts = {part: _counted(part, new) for part in parts}
        total = sum(counts.values())
        columns[parent] = {part: count / total for part, count in counts.items()}
    return columns


def _counted(name: str, leaves: Leaves) -> float:
    tokens = leaves[name].tokens
    if tokens is None:
        raise InvalidTokens(
            f"{name!r} came from a split and has not been counted: its share of its parent's weight is not known",
            field="tokens",
            names=[name],
        )
    return tokens


def _check_names(changes: Changes, old: Leaves, new: Leaves) -> None:
    merged = (name for names in changes.merged.values() for name in names)
    parts = (name for names in changes.split.values() for name in names)
    before = (*changes.kept.values(), *changes.revised.values(), *changes.removed, *changes.split, *merged)
    after = (*changes.kept, *changes.revised, *changes.added, *changes.merged, *parts)
    _same_names(old, before, "older")
    _same_names(new, after, "newer")


def _same_names(revision: Iterable[str], named: Iterable[str], which: str) -> None:
    has, names = set(revision), set(named)
    if unknown := sorted(names - has):
        raise UnknownDomain(f"the {which} revision does not have {', '.join(unknown)}", names=unknown)
    if missing := sorted(has - names):
        raise MissingDomain(
            f"the changes do not say what is with {', '.join(missing)} of the {which} revision", names=missing
        )
