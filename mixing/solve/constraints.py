"""Named linear constraints on a mixture: caps, shares and pins, and all of them together as matrices on q.

A request names domains or whole groups of them (`share_of`); a solver sees rows (`LinearSystem`), and a search a box
with coupling rows beside it (`Box`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np

from mixing.errors import InvalidSetting, UnknownDomain
from mixing.simplex_map import SimplexMap


@dataclass(frozen=True)
class LinearConstraint:
    """lower <= sum_j coefficients_j p_j <= upper, under a name a person can act on.

    A cap is `{domain: 1} <= cap`; the share of a group `{each member: 1}` in a range; a pin has
    lower == upper. Domains not mentioned have coefficient 0.
    """

    name: str
    coefficients: Mapping[str, float]
    lower: float = -np.inf
    upper: float = np.inf

    def row(self, leaves: tuple[str, ...]) -> np.ndarray:
        """(m,) coefficients in the order of the leaves.

        Raises:
            UnknownDomain: the constraint mentions a domain that is no leaf.
        """
        positions = _positions(leaves)
        if unknown := sorted(self.coefficients.keys() - positions):
            raise UnknownDomain(
                f"the constraint {self.name!r} names unknown domains: {', '.join(unknown)}",
                field="constraints",
                names=unknown,
            )
        row = np.zeros(len(leaves))
        row[[positions[name] for name in self.coefficients]] = list(self.coefficients.values())
        return row


# One question has hundreds of constraints on thousands of domains.
@lru_cache(maxsize=4)
def _positions(leaves: tuple[str, ...]) -> Mapping[str, int]:
    return {name: position for position, name in enumerate(leaves)}


@lru_cache(maxsize=4)
def _below(leaves: tuple[str, ...]) -> Mapping[str, Sequence[str]]:
    """What each selector stands for: a leaf for itself, a group for every leaf below."""
    found: dict[str, list[str]] = {}
    for name in leaves:
        parts = name.split(":")
        for depth in range(1, len(parts) + 1):
            found.setdefault(":".join(parts[:depth]), []).append(name)
    return found


def check_names(leaves: Collection[str], names: Sequence[str]) -> None:
    """Raise InvalidSetting where a constraint's name would not tell it from another constraint or from a cap."""
    seen = set(leaves)
    for name in names:
        if name in seen:
            raise InvalidSetting(
                f"the constraint name {name!r} is taken by another constraint or a domain; name it otherwise",
                field="constraints",
                names=[name],
            )
        seen.add(name)


def members(selectors: Iterable[str], names: Sequence[str]) -> list[str]:
    """The domains selectors stand for, sorted: the leaf of that name, or every leaf below (`web` for `web:news`).

    Raises:
        UnknownDomain: a selector is neither a leaf nor a group.
    """
    below, chosen = _below(tuple(names)), set[str]()
    for selector in selectors:
        if selector not in below:
            raise UnknownDomain(
                f"{selector!r} is neither a domain nor a group of domains of this set",
                field="domains",
                names=[selector],
            )
        chosen.update(below[selector])
    return sorted(chosen)


def share_of(
    selectors: Iterable[str],
    names: Sequence[str],
    minimum: float | None = None,
    maximum: float | None = None,
    name: str | None = None,
) -> LinearConstraint:
    """The constraint minimum <= sum of the selected domains' weights <= maximum.

    Args:
        selectors: domains or groups; one named twice, or inside a group named too, counts once.
        names: every domain of the set.
        minimum: none is 0.
        maximum: none is 1; equal to the minimum it is a pin.
        name: how messages call it; left out, the selectors joined. A domain's name stands for its cap and is taken.

    Raises:
        UnknownDomain: a selector stands for nothing.
        InvalidSetting: no selector, bounds outside [0, 1], a minimum above the maximum, or a domain's name.

    >>> web = share_of(["web"], ["code", "web:forums", "web:news"], minimum=0.2)
    >>> web.name, web.lower
    ('web', 0.2)
    """
    listed = list(dict.fromkeys(selectors))
    if not listed:
        raise InvalidSetting("a share needs at least one domain or group", field="domains")
    if name is not None and name in names:
        raise InvalidSetting(
            f"a share cannot be called {name!r}, as a domain is; name it otherwise or not at all",
            field="name",
            names=[name],
        )
    chosen = members(listed, names)
    lowest, highest = 0.0 if minimum is None else minimum, 1.0 if maximum is None else maximum
    if not 0 <= lowest <= highest <= 1:
        raise InvalidSetting(
            f"the share of {' + '.join(listed)} lies between {lowest:g} and {highest:g}; bounds rise from 0 to 1",
            field="minimum",
            names=listed,
        )
    joined = " + ".join(listed)
    return LinearConstraint(
        name=name or (f"share of {joined}" if joined in names else joined),
        coefficients=dict.fromkeys(chosen, 1.0),
        lower=lowest if lowest > 0 or lowest == highest else -np.inf,
        upper=highest if highest < 1 or lowest == highest else np.inf,
    )


@dataclass(frozen=True)
class LinearSystem:
    """G q <= h and A q = b, besides q >= 0 and sum q = 1.

    Attributes:
        inequality: (r, n) G, and `bound` (r,) h.
        equality: (e, n) A, and `value` (e,) b.
        inequality_names: (r,) what each row is: a domain's name for a cap, else the constraint's name.
        is_cap: (r,) whether the row is a cap.
        is_lower: (r,) whether the row is the lower end of a constraint, both sides negated.
        equality_names: (e,).
    """

    inequality: np.ndarray
    bound: np.ndarray
    equality: np.ndarray
    value: np.ndarray
    inequality_names: tuple[str, ...]
    is_cap: np.ndarray
    is_lower: np.ndarray
    equality_names: tuple[str, ...]

    @classmethod
    def of(cls, space: SimplexMap, caps: np.ndarray, constraints: Sequence[LinearConstraint]) -> Self:
        """The (m,) caps below 1 and the constraints on the leaves, pulled back to q."""
        capped = np.flatnonzero(caps < 1)
        rows = np.array([constraint.row(space.leaves) for constraint in constraints])
        # All at once: for one row after another the whole matrix would be read as often.
        rows = space.pull_back_rows(rows.reshape(len(constraints), len(space.leaves)))
        is_pin = np.array([constraint.lower == constraint.upper for constraint in constraints], dtype=bool)
        ends = [
            (sign * row, sign * end, constraint.name, sign < 0)
            for row, constraint, pinned in zip(rows, constraints, is_pin, strict=True)
            for end, sign in ((constraint.upper, 1.0), (constraint.lower, -1.0))
            if np.isfinite(end) and not pinned
        ]
        below = np.array([row for row, _, _, _ in ends]).reshape(len(ends), len(space.free))
        lower = np.array([is_lower for _, _, _, is_lower in ends], dtype=bool)
        return cls(
            inequality=np.concatenate([space.matrix[capped], below]),
            bound=np.concatenate([caps[capped], [end for _, end, _, _ in ends]]),
            equality=rows[is_pin],
            value=np.array([one.upper for one in constraints if one.lower == one.upper]),
            inequality_names=(*(space.leaves[j] for j in capped), *(name for _, _, name, _ in ends)),
            is_cap=np.arange(len(capped) + len(ends)) < len(capped),
            is_lower=np.concatenate([np.zeros(len(capped), dtype=bool), lower]),
            equality_names=tuple(one.name for one in constraints if one.lower == one.upper),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Every constraint once, in order."""
        return tuple(dict.fromkeys(self.inequality_names + self.equality_names))

    def only(self, names: Collection[str]) -> "LinearSystem":
        """The system with the constraints of these names alone."""
        names = frozenset(names)
        kept = [i for i, name in enumerate(self.inequality_names) if name in names]
        pins = [i for i, name in enumerate(self.equality_names) if name in names]
        return LinearSystem(
            self.inequality[kept],
            self.bound[kept],
            self.equality[pins],
            self.value[pins],
            tuple(self.inequality_names[i] for i in kept),
            self.is_cap[kept],
            self.is_lower[kept],
            tuple(self.equality_names[i] for i in pins),
        )

    def on_face(self, tight: np.ndarray, kept: np.ndarray) -> "LinearSystem":
        """The system where the rows `tight` (r,) hold with equality and the q not `kept` (n,) are 0.

        Equalities that the others imply are dropped.
        """
        if not len(self.value) and not tight.any() and kept.all():
            return self
        rows = np.concatenate([self.equality, self.inequality[tight]])[:, kept]
        values = np.concatenate([self.value, self.bound[tight]])
        names = self.equality_names + tuple(np.array(self.inequality_names)[tight])
        chosen = _independent(np.concatenate([np.ones((1, int(kept.sum()))), rows]))
        return replace(
            self,
            inequality=self.inequality[~tight][:, kept],
            bound=self.bound[~tight],
            equality=rows[chosen],
            value=values[chosen],
            inequality_names=tuple(np.array(self.inequality_names, dtype=str)[~tight]),
            is_cap=self.is_cap[~tight],
            is_lower=self.is_lower[~tight],
            equality_names=tuple(names[i] for i in chosen),
        )


def _independent(rows: np.ndarray) -> np.ndarray:
    """Which rows after the first are linearly independent of it and of each other."""
    chosen: list[int] = []
    basis = rows[:1] / np.linalg.norm(rows[0])
    for index, row in enumerate(rows[1:]):
        left = row - basis.T @ (basis @ row)
        left -= basis.T @ (basis @ left)
        if np.linalg.norm(left) > 1e-9 * max(np.linalg.norm(row), 1e-300):
            basis = np.concatenate([basis, left[None] / np.linalg.norm(left)])
            chosen.append(index)
    return np.array(chosen, dtype=int)


@dataclass(frozen=True)
class Box:
    """A linear system by the number of q that its inequalities touch.

    Attributes:
        lower: (n,) and `upper` (n,): what the rows on one q alone leave it, within [0, 1].
        coupling: (c, n) the other rows, and `bound` (c,).
    """

    lower: np.ndarray
    upper: np.ndarray
    coupling: np.ndarray
    bound: np.ndarray

    @classmethod
    def of(cls, system: LinearSystem) -> Self:
        """Sort the rows of a system."""
        alone = (system.inequality != 0).sum(1) == 1
        rows = system.inequality[alone]
        column = (rows != 0).argmax(1)
        coefficient = rows[np.arange(len(rows)), column]
        limit = system.bound[alone] / coefficient
        lower, upper = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        np.maximum.at(lower, column[coefficient < 0], limit[coefficient < 0])
        np.minimum.at(upper, column[coefficient > 0], limit[coefficient > 0])
        return cls(lower, upper, system.inequality[~alone], system.bound[~alone])
