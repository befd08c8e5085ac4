"""Linear maps between simplices: p = E q, with p over the leaves and q over what is being searched.

A frozen group, a split, an added or removed domain: each is a column-stochastic matrix. Maps compose
with `@`, and what binds the leaves is pulled back to q through the matrix instead of being typed in.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import sparse

from mixing.errors import (
    DuplicateDomain,
    InvalidDomainName,
    InvalidWeights,
    MissingDomain,
    UnknownDomain,
)

_COLUMN_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class SimplexMap:
    """A column-stochastic matrix with named rows and columns.

    Attributes:
        leaves: (m,) names of the rows.
        free: (n,) names of the columns: domains left as they are, and virtual domains.
        matrix: (m, n), non-negative, columns summing to 1, read-only.

    Raises:
        InvalidWeights: a column that is not a distribution (named).
        DuplicateDomain: two columns or rows of one name.
    """

    leaves: tuple[str, ...]
    free: tuple[str, ...]
    matrix: np.ndarray

    def __post_init__(self) -> None:
        for names in (self.leaves, self.free):
            if len(set(names)) < len(names):
                repeated = sorted(name for name, count in Counter(names).items() if count > 1)
                raise DuplicateDomain(f"named twice in a map: {', '.join(repeated)}", names=repeated)
        matrix = np.array(self.matrix, dtype=float)
        if matrix.shape != (len(self.leaves), len(self.free)):
            raise InvalidWeights(
                f"the matrix is {matrix.shape}, not ({len(self.leaves)}, {len(self.free)})", field="matrix"
            )
        faulty = ~np.isfinite(matrix).all(0) | (matrix < 0).any(0)
        faulty |= np.abs(matrix.sum(0) - 1) > _COLUMN_TOLERANCE
        if faulty.any():
            names = [name for name, bad in zip(self.free, faulty, strict=True) if bad]
            raise InvalidWeights(f"not a distribution over the leaves: {', '.join(names)}", names=names)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def identity(cls, leaves: Sequence[str]) -> Self:
        """Every leaf is searched by itself."""
        return cls(tuple(leaves), tuple(leaves), np.eye(len(leaves)))

    @classmethod
    def freeze(cls, leaves: Sequence[str], groups: Mapping[str, Mapping[str, float]]) -> Self:
        """Each group becomes one virtual domain; the other leaves stay free.

        Args:
            leaves: names of the rows.
            groups: `{virtual name: {leaf: relative weight}}`; relative weights are divided by their sum.

        Raises:
            UnknownDomain: a group names something that is no leaf.
            DuplicateDomain: a leaf in two groups.
            InvalidDomainName: a virtual domain called like a leaf outside it.
            InvalidWeights: a group whose relative weights are negative or sum to 0.
        """
        rows = {name: row for row, name in enumerate(leaves)}
        frozen: dict[str, str] = {}
        for virtual, ratios in groups.items():
            _check_group(virtual, ratios, rows, frozen)
            frozen |= dict.fromkeys(ratios, virtual)
        alone = [name for name in leaves if name not in frozen]
        if called := sorted(set(alone) & set(groups)):
            raise InvalidDomainName(
                f"the virtual domain {called[0]!r} is called like a leaf that stays free", names=called
            )
        free = tuple(sorted([*groups, *alone]))
        columns = {name: column for column, name in enumerate(free)}
        matrix = np.zeros((len(rows), len(free)))
        matrix[[rows[name] for name in alone], [columns[name] for name in alone]] = 1.0
        for virtual, ratios in groups.items():
            total = sum(ratios.values())
            for name, ratio in ratios.items():
                matrix[rows[name], columns[virtual]] = ratio / total
        return cls(tuple(leaves), free, matrix)

    def __matmul__(self, inner: "SimplexMap") -> "SimplexMap":
        """`(outer @ inner).expand(q) == outer.expand(inner.expand(q))`; joined by name.

        Raises:
            UnknownDomain: `inner` ends in domains that `self` does not start from.
            MissingDomain: `self` starts from domains that `inner` does not produce.
        """
        if unknown := sorted(set(inner.leaves) - set(self.free)):
            raise UnknownDomain(f"the outer map has no column for {', '.join(unknown)}", names=unknown)
        if missing := sorted(set(self.free) - set(inner.leaves)):
            raise MissingDomain(f"the inner map has no row for {', '.join(missing)}", names=missing)
        rows = {name: row for row, name in enumerate(inner.leaves)}
        order = [rows[name] for name in self.free]
        return SimplexMap(self.leaves, inner.free, self.matrix @ inner.matrix[order])

    def expand(self, free_weights: np.ndarray) -> np.ndarray:
        """(..., n) weights over what is searched -> (..., m) weights over the leaves."""
        return free_weights @ self.matrix.T

    def collapse(self, weights: np.ndarray) -> np.ndarray:
        """(..., m) amounts of the leaves -> (..., n): a virtual domain has what its members have together."""
        return weights @ (self.matrix > 0)

    def pull_back_rows(self, rows: np.ndarray) -> np.ndarray:
        """(r, m) coefficients of linear forms on the leaves -> (r, n) of the same forms on q."""
        # Most of a map is 0: of thousands of domains the product of full matrices takes a second.
        return rows @ sparse.csr_array(self.matrix)

    def pull_back_caps(self, caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m,) caps on the leaves -> (n,) the largest each q_i may be, min_j cap_j / E_ji, and the leaf that sets it.

        A virtual domain may grow until the first of its members runs out.
        It is the exact pull-back when every leaf lies under one column (frozen groups do); where columns
        share leaves it is necessary but not sufficient, and the rows of `pull_back_rows` are needed too.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            limits = np.where(self.matrix > 0, caps[:, None] / self.matrix, np.inf)
        holder = limits.argmin(axis=0)
        return limits[holder, np.arange(len(holder))], holder


def _check_group(
    virtual: str, ratios: Mapping[str, float], rows: Mapping[str, int], frozen: Mapping[str, str]
) -> None:
    if unknown := sorted(set(ratios) - set(rows)):
        raise UnknownDomain(f"{virtual!r} freezes unknown domains: {', '.join(unknown)}", names=unknown)
    if repeated := sorted(set(ratios) & set(frozen)):
        raise DuplicateDomain(f"frozen in two groups: {', '.join(repeated)}", names=repeated)
    values = np.array(list(ratios.values()), dtype=float)
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() <= 0:
        raise InvalidWeights(
            f"the ratios of {virtual!r} must be non-negative and sum to more than 0", names=[virtual]
        )
