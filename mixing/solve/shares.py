"""Shares: what some domains, or whole groups of them, may weigh together."""

from collections.abc import Iterable, Sequence

import numpy as np

from mixing.errors import InvalidSetting, UnknownDomain
from mixing.solve.problem import LinearConstraint


def members(selector: str, names: Sequence[str]) -> tuple[str, ...]:
    """The domains a selector stands for: the leaf of that name, or every leaf below it (`web` for `web:news`).

    Raises:
        UnknownDomain: it is neither a leaf nor a group.
    """
    found = tuple(name for name in names if name == selector or name.startswith(f"{selector}:"))
    if not found:
        raise UnknownDomain(
            f"{selector!r} is neither a domain nor a group of domains of this set",
            field="domains",
            names=[selector],
        )
    return found


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
    chosen = sorted({domain for selector in listed for domain in members(selector, names)})
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
