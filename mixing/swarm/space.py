"""Where a swarm may lie: caps, minimum weights, pins and domains that must be present, checked once.

A mixture of the space has, for every domain that is not pinned, weight 0 or a weight from its minimum to its
cap; the domains that must be present have the latter. Pins are exact: no scaling, rounding or minimum weight
touches them. `into_space` brings any weights into it, so samplers need not reject: first which domains are
present, then how much of each.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from mixing.capped_simplex import SLACK, into_bounds, settle
from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting, InvalidWeights, UnknownDomain

LEAST_PRESENCE = 0.002
"""Weight at which a domain counts as present where nothing else is said: Olmix's smallest kept weight."""


@dataclass(frozen=True, eq=False)
class SwarmSpace:
    """The mixtures a swarm may use. Make one with `SwarmSpace.of`; arrays are in canonical order of the domains.

    Attributes:
        domains: m domains.
        pins: exact weights by name.
        free_mass: what the pins leave.
        pinned: (m,) the pinned weights, 0 elsewhere.
        lower: (m,) least weight of a domain that is present, 0 for pinned ones.
        upper: (m,) largest weight, at most `free_mass`; 0 for pinned domains and those whose minimum is above
            their cap, which are never present.
        required: (m,) whether the domain must be present.
        fallback: (m,) domains that can be present together and hold `free_mass`.
    """

    domains: Domains
    pins: Mapping[str, float]
    free_mass: float
    pinned: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    required: np.ndarray
    fallback: np.ndarray

    @classmethod
    def of(
        cls,
        domains: Domains,
        caps: np.ndarray | None = None,
        minimum_weights: np.ndarray | None = None,
        pins: Mapping[str, float] | None = None,
        nonzero: Collection[str] = (),
    ) -> Self:
        """The space of these constraints.

        Args:
            domains: m domains.
            caps: (m,) largest weights, None or inf for no cap.
            minimum_weights: (m,) a domain that is present has at least this weight.
            pins: exact weights by name; they stand above minimum weights, not above caps.
            nonzero: names that must be present: at their minimum weight, or where that is 0 at 0.002 (less
                where a cap or the number of domains makes that much).

        Raises:
            UnknownDomain: a pin or a name in `nonzero` that is no domain.
            InvalidWeights: a pin outside [0, 1].
            InvalidSetting: caps or minimum weights of another shape, negative or NaN.
            Infeasible: no mixture satisfies them together, naming the domains.
        """
        pins = {} if pins is None else {name: float(weight) for name, weight in pins.items()}
        caps = _bounds(domains, caps, np.inf, "caps")
        minimum = _bounds(domains, minimum_weights, 0.0, "minimum_weights")
        _check_names(domains, pins, nonzero)
        free_mass = _free_mass(domains, pins, caps)
        pinned = np.array([pins.get(name, 0.0) for name in domains.names])
        free = np.array([name not in pins for name in domains.names])
        upper = np.where(free, np.minimum(caps, free_mass), 0.0)
        required = free & np.isin(domains.names, list(nonzero))
        presence = least_presence(upper, free_mass)
        lower = np.where(free, np.where(required & (minimum == 0), presence, minimum), 0.0)
        _check_required(domains, pins, nonzero, required & ((lower > upper) | (upper == 0)))
        upper = np.where(lower > upper, 0.0, upper)
        fallback = _feasible_support(domains, lower, upper, required, free_mass)
        lower = np.where(upper > 0, lower, 0.0)
        for array in (pinned, lower, upper, required, fallback):
            array.setflags(write=False)
        return cls(domains, MappingProxyType(pins), free_mass, pinned, lower, upper, required, fallback)

    def __len__(self) -> int:
        return len(self.domains)

    @property
    def drawn(self) -> np.ndarray:
        """(m,) whether a sampler decides the domain: neither pinned nor kept at 0."""
        return self.upper > 0

    @property
    def prior(self) -> np.ndarray:
        """(m,) the natural distribution over the domains that are drawn; 0 elsewhere."""
        tokens = np.where(self.drawn, self.domains.tokens, 0.0)
        return tokens / max(tokens.sum(), np.finfo(float).tiny)

    def with_caps(self, caps: np.ndarray) -> "SwarmSpace":
        """The part of the space under (m,) further caps, which pins are not held to.

        Raises:
            Infeasible: there is none.
        """
        is_pinned = np.array([name in self.pins for name in self.domains.names])
        tighter = np.where(is_pinned, np.inf, np.minimum(self.upper, caps))
        required = [name for name, needed in zip(self.domains.names, self.required, strict=True) if needed]
        return SwarmSpace.of(self.domains, tighter, self.lower, self.pins, required)


def least_presence(upper: np.ndarray, free_mass: float) -> np.ndarray:
    """(m,) weight from which a domain counts as present: less than `LEAST_PRESENCE` where its cap is below four times
    that, or where there are so many domains that a quarter of an equal share of the mass is less."""
    return np.minimum(np.minimum(LEAST_PRESENCE, upper / 4), free_mass / (4 * len(upper)))


def _bounds(domains: Domains, values: np.ndarray | None, default: float, field: str) -> np.ndarray:
    if values is None:
        return np.full(len(domains), default)
    values = np.asarray(values, float)
    if values.shape != (len(domains),):
        raise InvalidSetting(
            f"{field} has shape {values.shape}; it needs one value for each of {len(domains)} domains",
            field=field,
        )
    faulty = [name for name, value in zip(domains.names, values, strict=True) if not value >= 0]
    if faulty:
        raise InvalidSetting(
            f"{field} must be at least 0, which it is not for {', '.join(faulty)}", field=field, names=faulty
        )
    return values


def _check_names(domains: Domains, pins: Mapping[str, float], nonzero: Collection[str]) -> None:
    for field, names in (("pins", pins), ("nonzero", nonzero)):
        if unknown := sorted(set(names) - set(domains.names)):
            raise UnknownDomain(
                f"{field} names domains the set does not have: {', '.join(unknown)}",
                field=field,
                names=unknown,
            )
    if faulty := sorted(name for name, weight in pins.items() if not 0 <= weight <= 1):
        raise InvalidWeights(
            f"a pin must lie between 0 and 1, which it does not for {', '.join(faulty)}",
            field="pins",
            names=faulty,
        )


def _free_mass(domains: Domains, pins: Mapping[str, float], caps: np.ndarray) -> float:
    over = sorted(
        name for name, cap in zip(domains.names, caps, strict=True) if name in pins and pins[name] > cap
    )
    if over:
        raise Infeasible(
            f"pinned above the cap: {', '.join(over)}; lower the pin or the target tokens",
            field="pins",
            names=over,
        )
    total = math.fsum(pins.values())
    if total > 1 + SLACK or (len(pins) == len(domains) and total < 1 - SLACK):
        raise Infeasible(
            f"the pins of {', '.join(sorted(pins))} sum to {total:.9g}, not"
            f" {'at most ' if total > 1 else ''}1",
            field="pins",
            names=sorted(pins),
        )
    return 1 - total if total < 1 - SLACK else 0.0


def _check_required(
    domains: Domains, pins: Mapping[str, float], nonzero: Collection[str], impossible: np.ndarray
) -> None:
    names = {name for name, bad in zip(domains.names, impossible, strict=True) if bad}
    names |= {name for name in nonzero if pins.get(name) == 0}
    if names:
        raise Infeasible(
            f"must be present but cannot be: {', '.join(sorted(names))}; the cap is below the minimum weight,"
            " or the pins leave nothing",
            field="nonzero",
            names=sorted(names),
        )


def _feasible_support(
    domains: Domains, lower: np.ndarray, upper: np.ndarray, required: np.ndarray, mass: float
) -> np.ndarray:
    """(m,) domains that can be present together: all if they can, else the fewest by an integer program."""
    allowed = upper > 0
    if mass == 0:
        return allowed
    if upper.sum() < mass - SLACK:
        free = [name for name, cap in zip(domains.names, upper, strict=True) if cap > 0]
        raise Infeasible(
            f"the caps of the domains that may be present sum to {upper.sum():.6g}, but they have to hold"
            f" {mass:.6g}; lower the target tokens, a minimum weight above its cap, or raise the repetition"
            " cap",
            field="caps",
            names=free or domains.names,
        )
    if lower[allowed].sum() <= mass:
        return allowed
    ends: Any = ([0.0, mass], [mass, np.inf])  # scipy's stubs know no arrays here
    choices: Any = (required.astype(float), allowed.astype(float))
    solved = milp(
        -upper,
        constraints=LinearConstraint(np.stack([lower, upper]), *ends),
        integrality=np.ones(len(upper)),
        bounds=Bounds(*choices),
    )
    if solved.x is None:
        names = [name for name, value in zip(domains.names, lower, strict=True) if value > 0]
        raise Infeasible(
            f"no set of domains meets the minimum weights of {', '.join(names)} and still sums to"
            f" {mass:.6g} under the caps; lower the minimum weights",
            field="minimum_weights",
            names=names,
        )
    return solved.x > 0.5


_ROUNDING = 1e-12
"""What an average of mixtures may lie past a bound that all of them keep."""


def into_space(space: SwarmSpace, weights: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) mixtures of the space near (n, m) non-negative weights of any scale.

    Which domains are present is kept where it can be: a domain below its minimum weight leaves, one that must
    be present enters, others enter at random where the caps of those present cannot hold the whole. What the
    weights have above their minimum is then scaled by one factor and clipped at the caps. A row that lies in
    the space stays as it is, but for rounding.
    """
    if not space.drawn.any():
        return np.broadcast_to(space.pinned, weights.shape).copy()
    wanted = np.where(space.drawn, weights, 0.0)
    sums = wanted.sum(1, keepdims=True)
    wanted = space.free_mass * np.divide(wanted, sums, out=np.zeros_like(wanted), where=sums > 0)
    present = _present(space, wanted, generator)
    lower, upper = np.where(present, space.lower, 0.0), np.where(present, space.upper, 0.0)
    # What rounding puts past a bound is clipped below: it must not draw from the generator, or another processor's
    # rounding would give another swarm.
    outside = (wanted < lower * (1 - _ROUNDING)) | (wanted > upper * (1 + _ROUNDING))
    rows = np.flatnonzero(outside.any(1) | (sums[:, 0] == 0))
    if len(rows):
        # Those that enter reach their caps in random order, so that under tight caps all of them vary.
        reserve = space.upper * (generator.standard_exponential((len(rows), len(space))) + 1e-6)
        wanted[rows] = into_bounds(wanted[rows], lower[rows], upper[rows], space.free_mass, reserve)
    settled = settle(wanted, upper, lower, 1.0 - float(space.pinned.sum()))
    return np.where(space.drawn, settled, space.pinned)


def _present(space: SwarmSpace, wanted: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(n, m) which domains are present: minima sum to at most the free mass, caps to at least that."""
    present = ((wanted > 0) & (wanted >= space.lower * (1 - 1e-12))) | space.required
    crowded = np.flatnonzero((present * space.lower).sum(1) > space.free_mass)
    if len(crowded):
        present[crowded] = _leave(space, present[crowded], wanted[crowded])
    short = np.flatnonzero((present * space.upper).sum(1) < space.free_mass)
    if len(short):
        present[short] = _enter(space, present[short], generator)
        crowded = short[(present[short] * space.lower).sum(1) > space.free_mass]
        present[crowded] = space.fallback
    return present


def _leave(space: SwarmSpace, present: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The domains with least weight leave until the minimum weights of the rest fit, required ones never."""
    order = np.argsort(-np.where(space.required, np.inf, np.where(present, wanted, -1.0)), 1, kind="stable")
    minima = np.take_along_axis(present * space.lower, order, 1)
    stays = np.cumsum(minima, 1) <= space.free_mass
    kept = np.zeros_like(present)
    np.put_along_axis(kept, order, stays, 1)
    return (kept & present) | space.required


def _enter(space: SwarmSpace, present: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Absent domains enter in random order until the caps of those present hold the free mass."""
    order = np.argsort(np.where(present, -1.0, generator.random(present.shape)), 1, kind="stable")
    bounds = np.broadcast_to(space.upper, present.shape)
    held = np.cumsum(np.take_along_axis(bounds, order, 1), 1)
    enters = np.ones_like(present)
    enters[:, 1:] = held[:, :-1] < space.free_mass
    entered = np.zeros_like(present)
    np.put_along_axis(entered, order, enters, 1)
    return (entered | present) & space.drawn


def corners(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, m) corners of the space: domains filled to their caps in random order until the whole is held.

    Each domain that is drawn comes first in turn (where none is capped, a corner is that domain alone), then each
    last: where the caps hold hardly more than the whole, only the last of a corner is below its cap. Under
    minimum weights the result is brought into the space and may not be a corner.
    """
    drawn = np.flatnonzero(space.drawn)
    if not len(drawn):
        return np.tile(space.pinned, (count, 1))
    keys = generator.random((count, len(space)))
    turn, position = np.divmod(np.arange(count), len(drawn))
    keys[np.arange(count), drawn[position]] = np.where(turn % 2, 1.0, -1.0)
    order = np.argsort(np.where(space.drawn, keys, 2.0), 1, kind="stable")
    caps = space.upper[order]
    held = np.zeros_like(caps)
    np.cumsum(caps[:, :-1], axis=1, out=held[:, 1:])
    filled = np.zeros_like(caps)
    np.put_along_axis(filled, order, np.clip(space.free_mass - held, 0.0, caps), 1)
    return into_space(space, filled, generator)


def averages_of_corners(space: SwarmSpace, count: int, generator: np.random.Generator) -> np.ndarray:
    """(count, m) random averages of about 8 corners: every domain varies in them, however tight the caps."""
    extremes = corners(space, 2 * len(space), generator)
    concentration = min(0.125, 4 / len(space))
    shares = generator.dirichlet(np.full(len(extremes), concentration), size=count)
    return into_space(space, shares @ extremes, generator)
